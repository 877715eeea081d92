"""The effect of a caller who floods the gateway on another caller, with the default limits."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from contextlib import suppress

import uvloop

from .gateway import QUIET_KEY
from .load import CLIENT_KEY
from .stage import RECORDING, Stage
from .streams import Watched, Watcher, percentile
from .table import Table

COLUMNS = (
    "flood, streams at once",
    "quiet caller's p50 ms",
    "p99 ms",
    "of the p99 alone",
    "flood: whole",
    "429 or 503",
)
QUIET = 20
"""The quiet caller's concurrent streams."""


def measure(stage: Stage, *, floods: tuple[int, ...] = (0, 100, 250, 500, 1000, 3000), seconds: float = 8) -> Table:
    """Time the quiet caller's streams of one second, while the flooding caller replaces each stream that ends."""
    os.sched_setaffinity(0, {stage.load_core})
    [actor] = [one for one in stage.actors if one.name == RECORDING]
    url = f"{actor.server.url}/ai/slow/v1/chat/completions"
    rows: list[tuple[str, ...]] = []
    alone = 0.0
    for flood in floods:
        with _flood(url, flood, seconds + 2) as flooding:
            time.sleep(2)
            quiet = uvloop.run(_keep(url, QUIET_KEY, QUIET, seconds))
            whole, refused = flooding.communicate()[0].split()
        actor.server.settle()
        actor.server.check()
        took = [one.ended - one.began for one in quiet if one.ended is not None and one.whole]
        alone = alone or percentile(took, 0.99)
        rows.append(
            (
                str(flood),
                f"{percentile(took, 0.5) * 1e3:.0f}",
                f"{percentile(took, 0.99) * 1e3:.0f}",
                f"{percentile(took, 0.99) / alone:.2f}",
                whole,
                refused,
            )
        )
    return Table("fairness", COLUMNS, rows)


async def _keep(url: str, key: str, streams: int, seconds: float) -> list[Watched]:
    done: list[Watched] = []
    end = asyncio.get_running_loop().time() + seconds

    async def keep() -> None:
        watcher = Watcher(url, key)
        while asyncio.get_running_loop().time() < end:
            with suppress(OSError):
                done.append(await watcher.watch())
        watcher.close()

    await asyncio.gather(*(keep() for _ in range(streams)))
    return done


def _flood(url: str, streams: int, seconds: float) -> subprocess.Popen[str]:
    """Start the flood as a process of low priority, so that the quiet caller does not wait for the load generator."""
    command = [sys.executable, "-m", "benchmarks.fairness", url, str(streams), str(seconds)]
    return subprocess.Popen(["nice", "-n", "10", *command], stdout=subprocess.PIPE, text=True)


if __name__ == "__main__":
    loud = uvloop.run(_keep(sys.argv[1], CLIENT_KEY, int(sys.argv[2]), float(sys.argv[3])))
    print(sum(one.whole for one in loud), sum(one.status in (429, 503) for one in loud))
