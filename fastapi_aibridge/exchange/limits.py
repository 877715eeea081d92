"""How much one process takes on: requests at once, for all and for each caller, and requests in a time.

Counts are kept in memory and by initiator: all keys of one initiator share them.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable

from ..errors import GatewayError
from ..settings import LimitSettings

HELD_BACK = 1.0
"""Seconds, about, that the refusal of a request waits whose caller has half of the room already."""


class Limits:
    """Lets requests in and out.

    Nobody gets more than half of the room that there is, so that one who floods does not lock the others out. A
    request over its caller's own limit waits `max_wait` seconds for its turn before it is refused, and for a second or
    so where there is no turn for it: a client that comes back at once costs time only while it is being answered.
    """

    def __init__(self, settings: LimitSettings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.apply(settings)
        self._callers: dict[str, _Caller] = {}  # who has requests here: enter, leave
        self._inside = 0  # all requests, those that wait included
        self._held_back = 0  # those that are about to be refused
        self._rates: dict[str, _Rate] = {}
        self._swept = clock()

    def apply(self, settings: LimitSettings) -> None:
        """From now on these hold; requests that run are not touched."""
        self.max_stream_duration = settings.max_stream_duration
        self._max_concurrent = settings.max_concurrent
        self._per_principal = settings.per_principal
        self._with_waiting = max(settings.per_principal, settings.share)
        self._max_wait = settings.max_wait
        self._requests = settings.requests
        self._window = settings.window

    @property
    def inside(self) -> int:
        """Requests that run or wait."""
        return self._inside

    @property
    def waiting_room(self) -> WaitingRoom:
        """For who waits for something before their request's work begins, and is counted as a request only then."""
        return WaitingRoom(self)

    async def enter(self, initiator: str, *, is_request: bool = True) -> None:
        """Call before the work, and `leave` after it unless this raised. Raises `GatewayError`, 429 or 503."""
        if self._inside >= self._max_concurrent:
            raise GatewayError(
                503, "at_capacity", "the gateway has all the requests that it can take", headers={"retry-after": "1"}
            )
        caller = self._callers.get(initiator)
        limit = self._per_principal
        if caller is not None and caller.running + len(caller.waiting) >= self._with_waiting:
            await self._hold_back()
            raise _too_many(limit)
        if self._requests is not None and is_request:
            self._count(initiator, self._requests, self._window)
        if caller is None:
            caller = self._callers[initiator] = _Caller()
        self._inside += 1
        if caller.running < limit:
            caller.running += 1
            return
        try:
            await caller.turn(self._max_wait)
        except BaseException as error:
            self._inside -= 1
            if not caller.running and not caller.waiting and self._callers.get(initiator) is caller:
                del self._callers[initiator]
            if isinstance(error, TimeoutError):
                raise _too_many(limit) from None
            raise

    async def _hold_back(self) -> None:
        """Wait before a refusal: many clients come back at once, and each time it costs more than waiting does."""
        if self._held_back < self._max_concurrent:
            self._held_back += 1
            try:
                # Not all of them after the same time, or they come back together.
                await asyncio.sleep(min(HELD_BACK * random.uniform(0.5, 1.5), self._max_wait))  # noqa: S311
            finally:
                self._held_back -= 1

    def leave(self, initiator: str) -> None:
        """The request is over."""
        self._inside -= 1
        caller = self._callers[initiator]
        caller.running -= 1
        while caller.waiting and caller.running < self._per_principal:
            caller.call_next()
        if not caller.running and not caller.waiting:
            del self._callers[initiator]

    def _count(self, initiator: str, allowed: int, window: float) -> None:
        now = self._clock()
        if now - self._swept >= window:
            self._swept = now
            self._rates = {name: rate for name, rate in self._rates.items() if now - rate.start < 2 * window}
        rate = self._rates.get(initiator)
        if rate is None:
            rate = self._rates[initiator] = _Rate(now)
        wait = rate.count(now, allowed, window)
        if wait is not None:
            raise GatewayError(
                429,
                "rate_limit_exceeded",
                f"the limit is {allowed} requests in {window:g} s",
                headers={"retry-after": str(max(1, math.ceil(wait)))},
            )


class WaitingRoom:
    """The same limits of requests at once, without the limit of requests in a time."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.leave = limits.leave

    async def enter(self, initiator: str) -> None:
        await self._limits.enter(initiator, is_request=False)


_HAIR = 1e-6
"""Of a request: what sums of fractions may be off."""


class _Caller:
    """One initiator's requests at the moment."""

    __slots__ = ("running", "waiting")

    def __init__(self) -> None:
        self.running = 0
        self.waiting: list[asyncio.Future[None]] = []  # no deque: most never wait, and a list is cheap to make

    async def turn(self, seconds: float) -> None:
        """Wait for a place; it is taken when this returns. Raises `TimeoutError`."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(future)
        try:
            async with asyncio.timeout(seconds):
                await future
        except BaseException:
            if future.done() and not future.cancelled():
                self.running -= 1  # called in the very moment that it gave up: the place is the next one's
                self.call_next()
            elif future in self.waiting:
                self.waiting.remove(future)
            raise

    def call_next(self) -> None:
        """Give a place to who has waited longest, if anybody waits."""
        while self.waiting:
            future = self.waiting.pop(0)
            if not future.done():  # cancelled, and its task has not run yet
                future.set_result(None)
                self.running += 1
                return


class _Rate:
    """Requests in a window that slides: the last window counts by the part of it that is still in sight."""

    __slots__ = ("before", "now", "start")

    def __init__(self, start: float) -> None:
        self.start = start
        self.before = 0
        self.now = 0

    def count(self, time: float, allowed: int, window: float) -> float | None:
        """Count one more; or return the seconds until there is room for it."""
        passed = (time - self.start) // window
        if passed >= 1:
            self.before = self.now if passed == 1 else 0
            self.now = 0
            self.start += passed * window
        gone = time - self.start
        if self.before * (1 - gone / window) + self.now < allowed - _HAIR:
            self.now += 1
            return None
        if self.now < allowed:
            return window * (1 - (allowed - 2 * _HAIR - self.now) / self.before) - gone
        # Not in this window; in the next, when enough of this one is out of sight.
        return window - gone + window * (1 - (allowed - 2 * _HAIR) / self.now)


def _too_many(limit: int) -> GatewayError:
    return GatewayError(
        429,
        "too_many_concurrent_requests",
        f"you have all the requests at once that you may have, which is {limit}",
        headers={"retry-after": "1"},
    )
