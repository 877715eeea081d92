"""What the process itself does for the plugin: garbage collection and signals."""
