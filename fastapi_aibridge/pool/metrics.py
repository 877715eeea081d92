"""What a pool tells about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

Reason: TypeAlias = Literal["capacity", "expired", "reloaded", "revoked", "session", "shutdown"]
Outcome: TypeAlias = Literal["ok", "degraded", "failed", "timeout", "shutdown"]


@dataclass(frozen=True, slots=True)
class PoolMetrics:
    """The pool at one moment; `hits` to `keys_evicted` and `evictions` count from its beginning and only grow."""

    size: int
    max_items: int
    ttl_seconds: float
    hits: int
    misses: int
    """Acquires that found no cached bridge, those that joined a build in flight included."""
    keys_added: int
    keys_evicted: int
    """Bridges that capacity or expiry removed from the cache."""
    builds_in_flight: int
    leases: int
    """Leases of bridges that are open, waiting for a build included."""
    draining: int
    """Bridges that have left the cache, or did not start, and are not closed yet."""
    provider_version: int
    evictions: Mapping[str, int]
    """Bridges that left the cache, by reason: `capacity`, `expired`, `reloaded`, `revoked` (the principal was cut off),
    `session` (the principal came with another session key), `shutdown`."""
