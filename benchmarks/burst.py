"""Many streams that begin at the same time on one worker: the delay of each event beyond the model's own pace."""

from __future__ import annotations

import asyncio
import os
import resource

import uvloop

from . import load
from .stage import CLIENT, PRINCIPAL, RELAY, TOOLS, UPSTREAM, Stage
from .streams import EVENTS, SLOW, Watched, percentile, watch
from .table import Table

COLUMNS = (
    "streams at once",
    "server",
    "failed",
    "first byte p50 ms",
    "p99 ms",
    "added p99 ms",
    "event late p50 ms",
    "p99 ms",
    "added p99 ms",
)


def measure(stage: Stage, *, streams: int) -> Table:
    """Measure streams of 50 text events, 20 ms apart. Added times are relative to the upstream alone in this run."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 2 * streams + 100:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4 * streams + 100), hard))
    os.sched_setaffinity(0, {stage.load_core})
    rows: list[tuple[str, ...]] = []
    base: tuple[float, float] | None = None
    for actor in stage.without(CLIENT, PRINCIPAL, TOOLS):
        path = f"{SLOW}/v1/chat/completions" if actor.name in (UPSTREAM, RELAY) else "/ai/slow/v1/chat/completions"
        uvloop.run(_burst(actor.server.url + path, 20))
        done = uvloop.run(_burst(actor.server.url + path, streams))
        actor.server.settle()
        actor.server.check()
        whole = [one for one in done if one.whole and len(one.lateness()) == EVENTS]
        if not whole:
            raise load.LoadError(f"{actor.name}: of {streams} streams at once none was whole")
        first = [one.first for one in whole]
        late = [seconds for one in whole for seconds in one.lateness()]
        base = base or (percentile(first, 0.99), percentile(late, 0.99))
        rows.append(
            (
                str(streams),
                actor.name,
                str(streams - len(whole)),
                f"{percentile(first, 0.5) * 1e3:.0f}",
                f"{percentile(first, 0.99) * 1e3:.0f}",
                "-" if actor.name == UPSTREAM else f"{(percentile(first, 0.99) - base[0]) * 1e3:.0f}",
                f"{percentile(late, 0.5) * 1e3:.0f}",
                f"{percentile(late, 0.99) * 1e3:.0f}",
                "-" if actor.name == UPSTREAM else f"{(percentile(late, 0.99) - base[1]) * 1e3:.0f}",
            )
        )
    return Table("burst", COLUMNS, rows)


async def _burst(url: str, streams: int) -> list[Watched]:
    return await asyncio.gather(*(watch(url) for _ in range(streams)))
