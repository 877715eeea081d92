"""Whose work comes next when more is ready than the event loop gets done: fair queuing between initiators.

An event loop does all that is ready before it looks at its sockets again. Where one caller has a thousand streams with
an event each, everybody else would wait for the thousand.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from weakref import WeakValueDictionary

QUANTUM = 8
"""Pieces of a stream that one initiator may relay in one round of the event loop while others have work too: about half
a millisecond. With fewer, the waiting itself would cost noticeably.
"""
ALONE = 32
"""The same for an initiator that has been alone for `CALM` seconds. The next initiator waits for that long, once."""
CALM = 0.1
"""Seconds an initiator must be alone before the larger quantum applies."""
CROWDED = 4
"""The same for an initiator with `CROWD` or more waiting, alone or not: uvloop accepts one connection a round, so long
rounds would keep others from connecting at all.
"""
CROWD = 64
PIECE = 1
START = 4
"""A request's start takes as long as some four pieces."""


class FairQueue:
    """Gives each initiator a share of each round of the event loop, however much the others have to do.

    Who stays within it never waits. Nothing is refused, and an initiator who is alone gets all there is.
    """

    def __init__(
        self, *, is_shared: Callable[[], bool] = lambda: False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`is_shared` tells whether several initiators have requests at the moment, busy or not."""
        self.quantum = ALONE
        self.is_shared = is_shared
        self._clock = clock
        self._shares: WeakValueDictionary[str, Share] = WeakValueDictionary()
        self._busy: list[Share] = []  # those that have done or wait for something in this round
        self._last: Share | None = None
        self._last_change = 0.0  # when somebody else was busy

    def share(self, initiator: str) -> Share:
        """The initiator's share, the same one for all who hold it at a time."""
        share = self._shares.get(initiator)
        if share is None:
            share = self._shares[initiator] = Share(self)
        return share

    def join(self, share: Share) -> None:
        """The share has been touched; the next round renews it."""
        if not self._busy:
            asyncio.get_running_loop().call_soon(self._begin_round)
        self._busy.append(share)
        if share is not self._last:
            if self._last is not None:
                self.quantum = QUANTUM
            self._last = share
            self._last_change = self._clock()

    def _begin_round(self) -> None:
        busy, self._busy = self._busy, []
        if self.quantum != ALONE and self._clock() - self._last_change > CALM:
            self.quantum = ALONE
        for share in busy:
            share.renew()


class Share:
    """What one initiator may still do in this round, and what waits for the next ones, first come, first served."""

    __slots__ = ("__weakref__", "_lane", "_limit", "_queue", "_spent", "_waiting")

    def __init__(self, queue: FairQueue) -> None:
        self._queue = queue
        self._limit = QUANTUM
        self._spent = 0
        self._waiting: deque[tuple[asyncio.Future[None], int]] | None = None
        self._lane: asyncio.Lock | None = None

    @property
    def is_alone(self) -> bool:
        """Whether no other initiator has a request, nor has done anything for a while.

        One who waits for the database is not busy, and still needs that long work rests: the thread that writes for it
        gets the interpreter's lock only while the event loop is idle.
        """
        return self._queue.quantum == ALONE and not self._queue.is_shared()

    @property
    def lane(self) -> asyncio.Lock:
        """For work that is long, one at a time."""
        if self._lane is None:
            self._lane = asyncio.Lock()
        return self._lane

    def take(self, cost: int) -> bool:
        """Whether the work can be done now. If not, await `turn` before it."""
        spent = self._spent
        if not spent:
            self._queue.join(self)
            self._limit = self._queue.quantum
        elif spent >= self._limit:
            return False
        self._spent = spent + cost
        return True

    async def turn(self, cost: int) -> None:
        """Wait until the work can be done, after `take` has said no."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append((future, cost))
        await future

    def renew(self) -> None:
        """A round begins: those who wait go first."""
        self._spent = 0
        waiting = self._waiting
        if waiting:
            self._limit = self._queue.quantum if len(waiting) < CROWD else CROWDED
        while waiting and self._spent < self._limit:
            future, cost = waiting.popleft()
            if not future.done():  # else its request was cancelled
                future.set_result(None)
                self._spent += cost
        if not waiting:
            self._waiting = None
        if self._spent:
            self._queue.join(self)
