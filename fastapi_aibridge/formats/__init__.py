"""Wire formats, without I/O: they read requests, observe responses and write errors."""
