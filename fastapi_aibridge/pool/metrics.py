"""The metrics of a pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

Reason: TypeAlias = Literal["capacity", "expired", "reloaded", "revoked", "session", "shutdown"]
Outcome: TypeAlias = Literal["ok", "degraded", "failed", "timeout", "shutdown"]


@dataclass(frozen=True, slots=True)
class PoolMetrics:
    """The pool at one moment. `hits` to `keys_evicted` and `evictions` count since its start; the rest are gauges."""

    size: int
    max_items: int
    ttl_seconds: float
    hits: int
    misses: int
    """Acquires that found no cached bridge, including those that joined a running build."""
    keys_added: int
    keys_evicted: int
    """Bridges that left the cache because it was full or they had expired."""
    builds_in_flight: int
    leases: int
    """Leases that are held, including those that wait for a build."""
    draining: int
    """Bridges that have left the cache or failed to start, and are not closed yet."""
    provider_version: int
    evictions: Mapping[str, int]
    """Bridges that left the cache, by reason: `capacity`, `expired`, `reloaded`, `revoked` (the principal was cut off),
    `session` (the principal used another session key), `shutdown`."""
