"""The pool of bridges: cache, leases, single-flight builds and retirement.

The pool does no I/O of its own and does not know what bridges and providers do.
"""
