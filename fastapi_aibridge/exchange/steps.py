"""Long work in short steps, with everybody else's turn in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from typing import TypeVar

from .fair_queue import QUANTUM, Share

T = TypeVar("T")

SLICE = 0.00025
"""Seconds of work between two looks at what else there is to do: a request of somebody else waits that long some few
times."""


async def in_steps(steps: Generator[None, None, T], share: Share) -> T:
    """Do the work; what the steps return.

    An initiator has one lane for long work, however many of its requests want some. Where others are busy, the lane
    rests before each slice, so that they find the event loop idle more often than not.
    """
    try:
        _work(steps)
        while True:
            async with share.lane:
                await asyncio.sleep(0 if share.is_alone else SLICE)
                if not share.take(QUANTUM):
                    await share.turn(QUANTUM)
                _work(steps)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    finally:
        steps.close()


def _work(steps: Generator[None, None, object]) -> None:
    """One slice. Raises `StopIteration` with the result where the work is done."""
    end = time.perf_counter() + SLICE
    while True:
        next(steps)
        if time.perf_counter() >= end:
            return
