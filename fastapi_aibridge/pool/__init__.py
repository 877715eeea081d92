"""Who has which bridge, and for how long: cache, leases, single flight and retirement.

What a bridge is, and what a provider is, the pool does not know; it does no I/O of its own.
"""
