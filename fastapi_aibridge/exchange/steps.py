"""Long work in short steps, with everybody else's turn in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from typing import TypeVar

from ..formats.large_text import LargeText
from ..formats.scanner import finish
from .fair_queue import QUANTUM, Share

T = TypeVar("T")

REST = 0.001
"""Seconds without long work after each slice. With less, uvloop's timers, which count milliseconds, do not rest."""

SLICE = 0.00025
"""Seconds of work between two looks at what else there is to do: a request of somebody else waits that long some few
times."""


async def in_steps(steps: Generator[None, None, T], share: Share) -> T:
    """Do the work; what the steps return.

    An initiator has one lane for long work, however many of its requests want some. Where others are busy, the lane
    rests before each slice, so that they find the event loop idle more often than not.
    """
    try:
        next(steps)  # most work is over then, and needs no clock
        _work(steps)
        while True:
            async with share.lane:
                await asyncio.sleep(0 if share.is_alone else REST)
                if not share.take(QUANTUM):
                    await share.turn(QUANTUM)
                _work(steps)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    finally:
        steps.close()


def later(steps: Generator[None, None, None]) -> None:
    """Do the work piece by piece while the event loop has nothing else to do; at once where none runs."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        finish(steps)
    else:
        loop.call_soon(_go_on, loop, steps)


def _go_on(loop: asyncio.AbstractEventLoop, steps: Generator[None, None, None]) -> None:
    try:
        next(steps)
    except StopIteration:
        return
    loop.call_soon(_go_on, loop, steps)


LargeText.give_back = later


def _work(steps: Generator[None, None, object]) -> None:
    """One slice. Raises `StopIteration` with the result where the work is done."""
    end = time.perf_counter() + SLICE
    while True:
        next(steps)
        if time.perf_counter() >= end:
            return
