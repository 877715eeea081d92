"""Changes to the process itself: garbage collection and signal handlers."""
