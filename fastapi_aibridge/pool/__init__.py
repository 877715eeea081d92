"""Who has which bridge, and for how long: cache, leases, single flight and retirement.

What a bridge is, and what a provider is, the pool does not know; it does no I/O of its own.
"""

from .background import Clock, Timer
from .lease import Lease
from .metrics import PoolMetrics
from .pool import BUILD_TIMEOUT, CLOSE_TIMEOUT, CachedBridgePool
from .pooled import PooledBridge, WaitingRoom

__all__ = [
    "BUILD_TIMEOUT",
    "CLOSE_TIMEOUT",
    "CachedBridgePool",
    "Clock",
    "Lease",
    "PoolMetrics",
    "PooledBridge",
    "Timer",
    "WaitingRoom",
]
