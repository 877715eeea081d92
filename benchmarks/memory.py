"""The memory of an open stream while the model is thinking."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress

import uvloop

from .gateway import LONG
from .stage import GATEWAY, RECORDING, RELAY, Actor, Stage
from .streams import Watcher
from .table import Table

COLUMNS = ("server", "streams open", "KiB/stream")


def measure(stage: Stage, *, streams: int = 1000) -> Table:
    """Measure the growth of resident memory with many streams open.

    A few streams open and close before, so that memory which is allocated once and used again is not counted.
    """
    os.sched_setaffinity(0, {stage.load_core})
    rows = []
    for actor in stage.actors:
        if actor.name in (RELAY, GATEWAY, RECORDING):
            prefix = LONG if actor.name == RELAY else "/ai/long"
            url = f"{actor.server.url}{prefix}/v1/chat/completions"
            uvloop.run(_grown(actor, url, 20))
            grown = uvloop.run(_grown(actor, url, streams))
            rows.append((actor.name, f"{streams:,}", f"{grown / streams / 1024:.1f}"))
    return Table("memory", COLUMNS, rows)


async def _grown(actor: Actor, url: str, streams: int) -> int:
    actor.server.settle()
    before = actor.server.rss
    watchers = [Watcher(url) for _ in range(streams)]
    watching = [asyncio.ensure_future(watcher.watch()) for watcher in watchers]
    try:
        while not all(watcher.watched.arrivals for watcher in watchers):  # noqa: ASYNC110 - one event per stream
            await asyncio.sleep(0.1)
        await asyncio.sleep(1)
        return actor.server.rss - before
    finally:
        for watcher, task in zip(watchers, watching, strict=True):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            watcher.close()
