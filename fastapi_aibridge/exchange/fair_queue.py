"""Fair queuing between initiators, for when more work is ready than the event loop can do at once.

An event loop does everything that is ready before it looks at its sockets again. If one caller had an event in each of
a thousand streams, everybody else would wait for all of them.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from weakref import WeakValueDictionary

QUANTUM = 8
"""Chunks of streams that one initiator may relay in one round of the event loop while others have work too: about half
a millisecond. With fewer, the waiting itself would cost noticeably.
"""
ALONE = 32
"""The quantum of an initiator that has been alone for `CALM` seconds. The next initiator waits for so many chunks
once.
"""
CALM = 0.1
"""Seconds that an initiator must be alone before the larger quantum applies."""
CROWDED = 4
"""The quantum of an initiator with `CROWD` or more waiters, alone or not: uvloop accepts one connection in each round,
so long rounds would keep others from connecting at all.
"""
CROWD = 64
PIECE = 1
START = 4
"""The cost of a request's start, which takes about as long as four chunks."""


class FairQueue:
    """Gives each initiator a share of each round of the event loop, however much the others have to do.

    An initiator within its share never waits. Nothing is refused, and an initiator that is alone gets all the time.
    """

    def __init__(
        self, *, is_shared: Callable[[], bool] = lambda: False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`is_shared` returns whether several initiators have requests at the moment, busy or not."""
        self.quantum = ALONE
        self.is_shared = is_shared
        self._clock = clock
        self._shares: WeakValueDictionary[str, Share] = WeakValueDictionary()
        self._busy: list[Share] = []  # those with work, done or waiting, in this round
        self._last: Share | None = None
        self._last_change = 0.0  # when the busy initiator last changed

    def share(self, initiator: str) -> Share:
        """Return the initiator's share, the same object as long as anything refers to it."""
        share = self._shares.get(initiator)
        if share is None:
            share = self._shares[initiator] = Share(self)
        return share

    def join(self, share: Share) -> None:
        """Note that the share has been used or has waiters, so that the next round renews it."""
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
    """One initiator's remaining work in this round, and its work that waits for the next rounds, in order."""

    __slots__ = ("__weakref__", "_lane", "_limit", "_queue", "_spent", "_waiting")

    def __init__(self, queue: FairQueue) -> None:
        self._queue = queue
        self._limit = QUANTUM
        self._spent = 0
        self._waiting: deque[tuple[asyncio.Future[None], int]] | None = None
        self._lane: asyncio.Lock | None = None

    @property
    def is_alone(self) -> bool:
        """Whether no other initiator has a request or has done anything for a while.

        Another initiator whose request only waits for the database counts too: the thread that writes for it gets the
        interpreter's lock only while the event loop is idle, so long work has to pause.
        """
        return self._queue.quantum == ALONE and not self._queue.is_shared()

    @property
    def lane(self) -> asyncio.Lock:
        """The lock for long work, of which each initiator does one at a time."""
        if self._lane is None:
            self._lane = asyncio.Lock()
        return self._lane

    def take(self, cost: int) -> bool:
        """Return whether the work may be done now, and count it. If not, await `turn` first."""
        spent = self._spent
        if not spent:
            self._queue.join(self)
            self._limit = self._queue.quantum
        elif spent >= self._limit:
            return False
        self._spent = spent + cost
        return True

    async def turn(self, cost: int) -> None:
        """Wait until the work may be done, after `take` has returned False."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append((future, cost))
        await future

    def renew(self) -> None:
        """Begin a round. Waiters go first."""
        self._spent = 0
        waiting = self._waiting
        if waiting:
            self._limit = self._queue.quantum if len(waiting) < CROWD else CROWDED
        while waiting and self._spent < self._limit:
            future, cost = waiting.popleft()
            if not future.done():  # a done one's request was cancelled
                future.set_result(None)
                self._spent += cost
        if not waiting:
            self._waiting = None
        if self._spent:
            self._queue.join(self)
