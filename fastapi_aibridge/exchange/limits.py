"""Limits the concurrent requests of one process, in all and for each initiator.

Counts are kept in memory, by initiator: all keys of one initiator share them.
"""

from __future__ import annotations

import asyncio
import random

from ..errors import GatewayError
from ..settings import LimitSettings

HELD_BACK = 1.0
"""Seconds, on average, before a request is refused whose initiator has too many requests already."""


class Limits:
    """Counts requests in and out, and refuses those over a limit.

    An initiator's running and waiting requests may take half of all places, or its own limit if that is larger, so that
    a flood from one does not lock out the others. A request over its initiator's limit waits `max_wait` seconds for its
    turn before it is refused. If the initiator has no place left to wait, the request is refused after about a second,
    because clients that retry at once cost time only while they are being answered.
    """

    def __init__(self, settings: LimitSettings) -> None:
        self.apply(settings)
        self._initiators: dict[str, _InitiatorSlots] = {}  # only those that have requests
        self._inside = 0  # all requests that run or wait
        self._held_back = 0  # requests that are about to be refused

    def apply(self, settings: LimitSettings) -> None:
        """Replace the limits. Running requests are not affected."""
        self.max_stream_duration = settings.max_stream_duration
        self._max_concurrent = settings.max_concurrent
        self._per_principal = settings.per_principal
        self._with_waiting = max(settings.per_principal, settings.share)
        self._max_wait = settings.max_wait

    @property
    def inside(self) -> int:
        """The number of requests that run or wait."""
        return self._inside

    @property
    def is_shared(self) -> bool:
        """Whether several initiators have requests that run or wait."""
        return len(self._initiators) > 1

    async def enter(self, initiator: str) -> None:
        """Take a place for a request, perhaps after a wait; `leave` gives it back. Raises `GatewayError` 429 or 503."""
        if self._inside >= self._max_concurrent:
            raise GatewayError(
                503, "at_capacity", "the gateway has all the requests that it can take", headers={"retry-after": "1"}
            )
        slots = self._initiators.get(initiator)
        limit = self._per_principal
        if slots is not None and slots.running + len(slots.waiting) >= self._with_waiting:
            await self._hold_back()
            raise _too_many(limit)
        if slots is None:
            slots = self._initiators[initiator] = _InitiatorSlots()
        self._inside += 1
        if slots.running < limit:
            slots.running += 1
            return
        try:
            await slots.turn(self._max_wait)
        except BaseException as error:
            self._inside -= 1
            if not slots.running and not slots.waiting and self._initiators.get(initiator) is slots:
                del self._initiators[initiator]
            if isinstance(error, TimeoutError):
                raise _too_many(limit) from None
            raise

    async def _hold_back(self) -> None:
        """Wait before a refusal: many clients retry at once, and each retry costs more than waiting does."""
        if self._held_back < self._max_concurrent:
            self._held_back += 1
            try:
                # A random time, so that the refused requests do not all come back together.
                await asyncio.sleep(min(HELD_BACK * random.uniform(0.5, 1.5), self._max_wait))  # noqa: S311
            finally:
                self._held_back -= 1

    def leave(self, initiator: str) -> None:
        """Give back the place of a request."""
        self._inside -= 1
        slots = self._initiators[initiator]
        slots.running -= 1
        while slots.waiting and slots.running < self._per_principal:
            slots.call_next()
        if not slots.running and not slots.waiting:
            del self._initiators[initiator]


class _InitiatorSlots:
    """One initiator's running and waiting requests."""

    __slots__ = ("running", "waiting")

    def __init__(self) -> None:
        self.running = 0
        self.waiting: list[asyncio.Future[None]] = []  # no deque: most never wait, and a list is cheaper to make

    async def turn(self, seconds: float) -> None:
        """Wait for a place; it is taken when this returns. Raises `TimeoutError`."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(future)
        try:
            async with asyncio.timeout(seconds):
                await future
        except BaseException:
            if future.done() and not future.cancelled():
                self.running -= 1  # it got a place in the very moment that it gave up; pass the place on
                self.call_next()
            elif future in self.waiting:
                self.waiting.remove(future)
            raise

    def call_next(self) -> None:
        """Give a place to the request that has waited longest, if any."""
        while self.waiting:
            future = self.waiting.pop(0)
            if not future.done():  # a done one was cancelled, and its task has not run yet
                future.set_result(None)
                self.running += 1
                return


def _too_many(limit: int) -> GatewayError:
    return GatewayError(
        429,
        "too_many_concurrent_requests",
        f"you have all the requests at once that you may have, which is {limit}",
        headers={"retry-after": "1"},
    )
