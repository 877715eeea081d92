"""Runs long work in short steps, between which other requests have their turn."""

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
"""Seconds of pause before each slice. uvloop's timers count milliseconds, so a shorter one would be no pause."""

SLICE = 0.00025
"""Seconds of long work between two pauses. A request of another initiator waits that long a few times."""


async def in_steps(steps: Generator[None, None, T], share: Share) -> T:
    """Do the work and return its result.

    Each initiator has one lane for long work, however many of its requests have some. If others are busy, the lane
    pauses before each slice, so that they mostly find the event loop idle.
    """
    try:
        next(steps)  # most work is done after one step, and needs no clock
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
    """Do the work one step at a time in the event loop, between other callbacks; at once if no loop runs."""
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
    """Do one slice. Raises `StopIteration` with the result when the work is done."""
    end = time.perf_counter() + SLICE
    while True:
        next(steps)
        if time.perf_counter() >= end:
            return
