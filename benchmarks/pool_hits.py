"""The cost of `CachedBridgePool.acquire` for a cached bridge, by the number of bridges in the cache."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterable, Sequence

import uvloop

from fastapi_aibridge import Principal
from fastapi_aibridge.pool.pool import CachedBridgePool

from .table import Table

SIZES = (10, 5_000, 100_000)
HITS = 20_000
COLUMNS = ("bridges in the pool", "one principal, µs", "random principals, µs")


class IdleBridge:
    """A bridge without resources, so that only the pool is measured."""

    degraded = False

    def __init__(self, principal: Principal, providers: tuple[str, ...]) -> None:
        self.principal = principal
        self.providers = providers

    def seen_by(self, principal: Principal) -> IdleBridge:  # noqa: ARG002 - the pool's protocol
        return self

    async def start(self) -> None: ...

    def retire(self) -> None: ...

    def cut(self, error: Callable[[], Exception]) -> None: ...

    async def aclose(self) -> None: ...


def measure(*, sizes: Sequence[int] = SIZES, rounds: int = 5) -> Table:
    """The medians over `rounds`, in processor time.

    The larger the pool, the more often random principals miss the processor's caches.
    """
    rows = [(f"{size:,}", *(f"{hit * 1e6:.2f}" for hit in uvloop.run(_hits(size, rounds)))) for size in sizes]
    return Table("pool_hits", COLUMNS, rows)


async def _hits(size: int, rounds: int) -> tuple[float, float]:
    pool: CachedBridgePool[IdleBridge, str] = CachedBridgePool(IdleBridge, ("openai",), max_items=size, ttl=3600.0)
    principals = [Principal(f"user-{number}") for number in range(size)]
    await _acquire(pool, principals)
    picked = random.Random(1).choices(principals, k=HITS)
    same, spread = [], []
    for _ in range(rounds):
        same.append(await _acquire(pool, picked[:1] * HITS))
        spread.append(await _acquire(pool, picked))
    metrics = pool.metrics()
    if metrics.misses != size:
        raise RuntimeError(f"{metrics.misses} acquires missed where {size} should have")
    return statistics.median(same), statistics.median(spread)


async def _acquire(pool: CachedBridgePool[IdleBridge, str], principals: Iterable[Principal]) -> float:
    count = 0
    start = time.thread_time()
    for principal in principals:
        async with pool.acquire(principal):
            count += 1
    return (time.thread_time() - start) / count
