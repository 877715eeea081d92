"""What one process counts: all there is without Redis, and what holds while Redis is away."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from .limit_rules import Counter, Kind

MAX_WINDOWS = 100_000
"""Windows that are kept; beyond that the oldest go."""
SWEEP_EVERY = 60.0
"""Seconds between two looks for windows that are over."""
AGAIN = 1.0
"""Seconds after which a request over a limit of concurrent ones may come again: nobody knows when others end."""
_HAIR = 1e-6
"""Of a request: what sums of fractions may be off."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a request passes, and what is left in the windows of its counters, in their order."""

    refused_by: int | None
    """The number of the counter that refuses."""
    wait: float
    """Seconds after which that counter will have room again, if nobody else comes."""
    left: Sequence[tuple[int, float]]
    """Of each counter of requests or tokens: what is left, and the seconds until it is as if nobody had come."""


class ProcessLimits:
    """Windows, and who runs. `admit` and `count` are called for requests that this process decides about alone; `enter`
    and `leave` for all.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._windows: dict[str, _Window] = {}
        self._running: dict[str, set[str]] = {}
        self._swept = clock()

    def admit(self, counters: Sequence[Counter], size: int) -> Verdict:
        """Count a request in all its windows, or in none where one counter refuses it. `size` is its body's."""
        now = self._clock()
        if now - self._swept >= SWEEP_EVERY:
            self._sweep(now)
        used = [self._used(counter, now) for counter in counters]
        for number, (counter, (count, wait)) in enumerate(zip(counters, used, strict=True)):
            if count >= counter.limit - _HAIR:
                return Verdict(number, wait, self._left(counters, now))
        for counter in counters:
            if counter.kind is not Kind.CONCURRENT:
                self._add(counter, counter.reserved(size), now)
        return Verdict(None, 0.0, self._left(counters, now))

    def _used(self, counter: Counter, now: float) -> tuple[float, float]:
        if counter.kind is Kind.CONCURRENT:
            return len(self._running.get(counter.key, ())), AGAIN
        window = self._windows.get(counter.key)
        return (0.0, 0.0) if window is None else window.used(now, counter.limit)

    def _left(self, counters: Iterable[Counter], now: float) -> list[tuple[int, float]]:
        left = []
        for counter in counters:
            window = self._windows.get(counter.key)
            left.append((counter.limit, 0.0) if window is None else window.left(now, counter.limit))
        return left

    def count(self, counters: Iterable[Counter], size: int, tokens: int, *, is_first: bool) -> None:
        """Count tokens of a request whose body has this size; `is_first`, in the place of those that were reserved."""
        now = self._clock()
        for counter in counters:
            self._add(counter, tokens - counter.reserved(size) if is_first else tokens, now)

    def _add(self, counter: Counter, amount: int, now: float) -> None:
        window = self._windows.get(counter.key)
        if window is None:
            while len(self._windows) >= MAX_WINDOWS:
                del self._windows[next(iter(self._windows))]
            window = self._windows[counter.key] = _Window(now, counter.window)
        window.add(now, amount)

    def _sweep(self, now: float) -> None:
        self._swept = now
        self._windows = {key: window for key, window in self._windows.items() if window.empty_in(now)}

    def enter(self, counters: Iterable[Counter], request: str) -> None:
        """The request runs from now on, by these counters of concurrent ones."""
        for counter in counters:
            self._running.setdefault(counter.key, set()).add(request)

    def leave(self, counters: Iterable[Counter], request: str) -> None:
        for counter in counters:
            running = self._running.get(counter.key)
            if running is not None:
                running.discard(request)
                if not running:
                    del self._running[counter.key]

    def running(self) -> Iterator[tuple[str, set[str]]]:
        """The keys of the counters of concurrent requests, and the requests that run."""
        return iter(self._running.items())

    def forget(self, begins: str) -> None:
        """Forget the windows whose keys begin with this."""
        for key in [key for key in self._windows if key.startswith(begins)]:
            del self._windows[key]


class _Window:
    """A window that slides: the last one counts by the part of it that is still in sight."""

    __slots__ = ("_before", "_now", "_seconds", "_start")

    def __init__(self, start: float, seconds: float) -> None:
        self._start = start
        self._seconds = seconds
        self._before = 0
        self._now = 0

    def _slide(self, now: float) -> float:
        """Seconds since the current window began."""
        passed = (now - self._start) // self._seconds
        if passed >= 1:
            self._before = self._now if passed == 1 else 0
            self._now = 0
            self._start += passed * self._seconds
        return now - self._start

    def add(self, now: float, amount: int) -> None:
        self._slide(now)
        self._now = max(0, self._now + amount)

    def used(self, now: float, limit: int) -> tuple[float, float]:
        """What has been counted, and the seconds until that is less than `limit`."""
        gone, seconds = self._slide(now), self._seconds
        count = self._before * (1 - gone / seconds) + self._now
        if count < limit - _HAIR:
            return count, 0.0
        if self._now < limit:
            return count, seconds * (1 - (limit - 2 * _HAIR - self._now) / self._before) - gone
        # Not in this window; in the next, when enough of this one is out of sight.
        return count, seconds - gone + seconds * (1 - (limit - 2 * _HAIR) / self._now)

    def left(self, now: float, limit: int) -> tuple[int, float]:
        """What is left of `limit`, and the seconds until it is as if nobody had come."""
        gone, seconds = self._slide(now), self._seconds
        if self._before:
            used = self._before * (1 - gone / seconds) + self._now
            return max(0, math.floor(limit - used)), 2 * seconds - gone if self._now else seconds - gone
        return max(0, limit - self._now), 2 * seconds - gone if self._now else 0.0

    def empty_in(self, now: float) -> float:
        gone = self._slide(now)
        return 2 * self._seconds - gone if self._now else self._seconds - gone if self._before else 0.0
