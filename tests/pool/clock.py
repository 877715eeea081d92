"""A clock and timers that the test controls."""

import asyncio
import heapq
from collections.abc import Callable
from itertools import count
from typing import Any


class ManualTimer:
    def __init__(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.callback = callback
        self.args = args
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class ManualClock:
    """A clock that stands still until `advance`, which fires the timers that become due, each at its own time."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self._order = count()
        self._timers: list[tuple[float, int, ManualTimer]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[..., object], /, *args: Any) -> ManualTimer:
        timer = ManualTimer(callback, args)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while self._timers and self._timers[0][0] <= end:
            when, _, timer = heapq.heappop(self._timers)
            if not timer.cancelled:
                self.now = max(self.now, when)
                timer.callback(*timer.args)
        self.now = end

    def fire_early(self) -> None:
        """Fire the next timer before its time."""
        _, _, timer = heapq.heappop(self._timers)
        timer.callback(*timer.args)

    @property
    def pending(self) -> list[float]:
        """The times at which the waiting timers are due."""
        return sorted(when for when, _, timer in self._timers if not timer.cancelled)


async def settled(turns: int = 20) -> None:
    """Let the event loop turn until every task waits for the test."""
    for _ in range(turns):
        await asyncio.sleep(0)
