"""Long work in short steps, with everybody else's turn in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from typing import TypeVar

from .fair_queue import QUANTUM, Share

T = TypeVar("T")

SLICE = 0.00025
"""Seconds of work between two looks at what else there is to do. A request of somebody else waits that long a few
times, in all no longer than it takes itself."""


async def in_steps(steps: Generator[None, None, T], share: Share) -> T:
    """Do the work; what the steps return. All long work of one initiator shares the turns of one."""
    begun = time.perf_counter()
    try:
        while True:
            next(steps)
            if time.perf_counter() - begun >= SLICE:
                await asyncio.sleep(0)
                if not share.take(QUANTUM):
                    await share.turn(QUANTUM)
                begun = time.perf_counter()
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    finally:
        steps.close()
