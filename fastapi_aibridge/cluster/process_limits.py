"""Rate limit counters in the memory of one process, for use without Redis and while it is unavailable."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from .limit_rules import Counter, Kind

MAX_WINDOWS = 100_000
"""Windows that are kept; the oldest are dropped."""
SWEEP_EVERY = 60.0
"""Seconds between two removals of expired windows."""
AGAIN = 1.0
"""Seconds after which a request over a limit of concurrent ones may be retried: the end of others is not known."""
_HAIR = 1e-6
"""The tolerance for rounding errors in sums of fractions, in requests or tokens."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a request is admitted, and the state of its counters."""

    refused_by: int | None
    """The index of the counter that refuses the request; None if it is admitted."""
    wait: float
    """Seconds until that counter has room again, if nothing else is counted."""
    left: Sequence[tuple[int, float]]
    """For each counter: the amount left and the seconds until its window is empty; meaningless for concurrent ones."""


class ProcessLimits:
    """Sliding windows, and the running requests.

    `admit` and `count` are called only for requests that this process decides alone, `enter` and `leave` for all.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._windows: dict[str, _Window] = {}
        self._running: dict[str, set[str]] = {}
        self._swept = clock()

    def admit(self, counters: Sequence[Counter], size: int) -> Verdict:
        """Count a request in all its windows, or in none if a counter refuses it. `size` is its body's, in bytes."""
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
        """Count tokens of a request with a body of `size` bytes; `is_first` replaces those reserved at admission."""
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
        self._windows = {key: window for key, window in self._windows.items() if not window.is_empty(now)}

    def enter(self, counters: Iterable[Counter], request: str) -> None:
        """Count the request as running in these counters of concurrent requests."""
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
        """Yield the key of each counter of concurrent requests, with the requests that run."""
        return iter(self._running.items())

    def forget(self, begins: str) -> None:
        """Drop the windows whose keys begin with this prefix."""
        for key in [key for key in self._windows if key.startswith(begins)]:
            del self._windows[key]


class _Window:
    """A sliding window: the previous interval counts in proportion to the part that the window still covers."""

    __slots__ = ("_before", "_now", "_seconds", "_start")

    def __init__(self, start: float, seconds: float) -> None:
        self._start = start
        self._seconds = seconds
        self._before = 0
        self._now = 0

    def _slide(self, now: float) -> float:
        """Advance to the current interval, and return the seconds since it began."""
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
        """Return the current count, and the seconds until it is less than `limit`."""
        gone, seconds = self._slide(now), self._seconds
        count = self._before * (1 - gone / seconds) + self._now
        if count < limit - _HAIR:
            return count, 0.0
        if self._now < limit:
            return count, seconds * (1 - (limit - 2 * _HAIR - self._now) / self._before) - gone
        # Not within this interval, but in the next, once enough of this one has slid out of the window.
        return count, seconds - gone + seconds * (1 - (limit - 2 * _HAIR) / self._now)

    def left(self, now: float, limit: int) -> tuple[int, float]:
        """Return the amount left of `limit`, and the seconds until the window is empty."""
        gone, seconds = self._slide(now), self._seconds
        if self._before:
            used = self._before * (1 - gone / seconds) + self._now
            return max(0, math.floor(limit - used)), 2 * seconds - gone if self._now else seconds - gone
        return max(0, limit - self._now), 2 * seconds - gone if self._now else 0.0

    def is_empty(self, now: float) -> bool:
        self._slide(now)
        return not self._now and not self._before
