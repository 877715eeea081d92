"""The group commit of a recorder: one task writes, and all rows that arrive during a commit go into the next one.

A start is written at once to the inbox, a narrow table without further indexes, so that the commit of one start is
cheap. A moment later many starts are filed together, that is, moved to the interceptions' table with their ends: most
of a row's cost is in the index pages that it touches, and rows written together share pages.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping

from ..errors import RecorderUnavailable
from .batch import Batch, PendingStart, Row, Sink
from .committer import Committer, WriterStats, fail
from .queue import WriteQueue
from .reservations import CounterListener, Outcome, Reservation

_ROUNDS = 6
"""Rounds of the event loop that a commit waits for further starts, at most."""
_FILING_DELAY = 0.05
_LIGHT = 256 * 1024
"""Bytes of other rows that may be written in a commit with starts."""


class Writer:
    """The writing side of a recorder: a queue, and the task that commits it to a sink.

    At most `max_pending` rows and about `max_bytes` are queued; then callers wait for room. A start waits for at most
    `start_timeout` seconds, and fails at once while the database has been unavailable for that long. `filing_delay`
    is the time in seconds until rows are filed if few arrive.
    """

    def __init__(
        self,
        sink: Sink,
        recorder_id: str,
        stats: WriterStats | None = None,
        *,
        max_pending: int = 10_000,
        max_bytes: int = 64 * 1024 * 1024,
        start_timeout: float = 3.0,
        filing_delay: float = _FILING_DELAY,
        counters_changed: CounterListener | None = None,
    ) -> None:
        self.stats = stats or WriterStats()
        self._sink = sink
        self._recorder_id = recorder_id
        self._max_pending = max_pending
        self._max_bytes = max_bytes
        self._start_timeout = start_timeout
        self._filing_delay = filing_delay
        self._counters_changed = counters_changed
        self._loop = asyncio.get_running_loop()
        self._queue = WriteQueue(recorder_id)
        self._committer = Committer(sink, self.stats)
        # The batch that is being committed: its rows, its weight, and its starts by their numbers.
        self._current_rows = 0
        self._current_weight = 0
        self._trying: Mapping[int, PendingStart] = {}
        self._shared = 0  # starts in the last commit
        self._is_due = False
        self._due_timer: asyncio.TimerHandle | None = None
        self._flushing: list[asyncio.Future[None]] = []
        self._overdue: asyncio.TimerHandle
        self._closing = False
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._task = self._loop.create_task(self._run(), name="aibridge-recorder-writer")

    @property
    def pending(self) -> int:
        """Rows that wait to be written to their tables."""
        return len(self._queue) + self._current_rows

    @property
    def available(self) -> bool:
        """Whether the database accepted the last write."""
        return self._committer.away_since is None

    async def start(
        self, interception_id: str, row: Row, stale_day: int | None = None, asked: Reservation | None = None
    ) -> None:
        """Write a start with its reservation, durable on return. Raises `RecorderUnavailable` and `OverBudget`."""
        await self._check_room()
        start = self._queue.add_start(interception_id, row, stale_day, asked)
        self._wake.set()
        try:
            await start.waiter
        except asyncio.CancelledError:
            if not start.waiter.cancelled() and start.waiter.exception() is None:
                self._queue.take_back(interception_id)
                self._schedule_filing()
            raise

    async def reserve(self, asked: Reservation) -> None:
        """Make a further reservation, durable on return. Raises `RecorderUnavailable` and `OverBudget`."""
        await self._check_room()
        start = self._queue.add_reservation(asked)
        self._wake.set()
        await start.waiter

    async def _check_room(self) -> None:
        if self._closing:
            raise RecorderUnavailable("the recorder is closed")
        away_since = self._committer.away_since
        if away_since is not None and self._loop.time() - away_since >= self._start_timeout:
            raise RecorderUnavailable("the records' database is away")
        if self._is_full():
            try:
                async with asyncio.timeout(self._start_timeout):
                    await self._wait_for_room()
            except TimeoutError:
                raise RecorderUnavailable("too many records wait for their database") from None

    async def put(
        self,
        interception_id: str,
        end: Row | None,
        facts: Row | None,
        stale_day: int | None = None,
        objects: Iterable[Row] = (),
        cost: int | None = 0,
    ) -> None:
        """Queue an end, facts and objects; waits for room in the queue. They are written however long that takes.

        `cost` is the interception's whole cost in micro-dollars; None if it may still become known.
        """
        try:
            while self._is_full() and not self._task.done():
                await self._wait_for_room()
        finally:
            # Even if the caller is cancelled while it waits, no end is lost; the queue then exceeds its bound a little.
            if end is not None:
                self._queue.add_end(interception_id, end, stale_day, cost)
            if facts is not None:
                self._queue.add_facts(facts)
            for row in objects:
                self._queue.add_object(row)
            self._schedule_filing()

    def expect_end(self, interception_id: str) -> None:
        """Settle the cost with the end of this interception, although another recorder has started it."""
        self._queue.expect_end(interception_id)

    async def flush(self, timeout: float = 1.0) -> None:  # noqa: ASYNC109
        """Wait at most `timeout` seconds until queued rows can be read; not at all if the database is unavailable."""
        if self._closing or not self.available or not self._queue.is_filing_needed:
            return
        waiter = self._loop.create_future()
        self._flushing.append(waiter)
        self._wake.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await waiter

    async def close(self, timeout: float) -> int:  # noqa: ASYNC109
        """Write the queued rows for at most `timeout` seconds. Returns how many could not be written."""
        self._closing = True
        self._wake.set()
        self._room.set()
        done, _ = await asyncio.wait([self._task], timeout=timeout)
        if not done:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=1)
        if self._due_timer is not None:
            self._due_timer.cancel()
        for start in (*self._trying.values(), *(start for start, _ in self._queue.starts)):
            fail(start, "the recorder is closed")
        left = self.pending
        await self._sink.close()
        return left

    def _is_full(self) -> bool:
        return self.pending >= self._max_pending or self._queue.weight + self._current_weight >= self._max_bytes

    async def _wait_for_room(self) -> None:
        while self._is_full() and not self._task.done():
            self._room.clear()
            self._is_due = True
            self._wake.set()
            await self._room.wait()

    def _schedule_filing(self) -> None:
        if self._queue.is_filing_full:
            self._is_due = True
            self._wake.set()
        elif self._due_timer is None and not self._is_due:
            self._due_timer = self._loop.call_later(self._filing_delay, self._filing_is_due)

    def _filing_is_due(self) -> None:
        self._due_timer = None
        self._is_due = True
        self._wake.set()

    async def _run(self) -> None:
        queue = self._queue
        took_starts = False
        while True:
            settles = queue.is_settling_due
            is_filing = queue.is_filing_needed and bool(settles or self._is_due or self._flushing or self._closing)
            if not queue.starts and not is_filing:
                if self._closing:
                    return
                self._is_due = False
                self._wake.clear()
                await self._wake.wait()
                continue
            takes_starts = True
            if queue.starts and is_filing and not settles and queue.weight > _LIGHT:
                # Large texts and starts alternate: a commit with a start waits for the disk.
                takes_starts = not took_starts
                is_filing = not takes_starts
            took_starts = takes_starts
            if queue.starts and takes_starts and not settles:
                await self._let_others_join()
            batch = Batch(self._recorder_id)
            before = queue.weight
            starts = queue.take_starts(batch) if takes_starts else {}
            flushed = self._file(batch, all_of_it=settles) if is_filing else []
            self._trying = starts
            self._current_rows, self._current_weight = len(batch), before - queue.weight
            outcome = await self._commit(batch, starts) if starts or is_filing else Outcome()
            queue.committed(batch, starts, outcome)
            self._current_rows = self._current_weight = 0
            self._trying = {}
            self._shared = len(starts) if takes_starts else self._shared
            if starts:
                self._schedule_filing()
            for waiter in flushed:
                if not waiter.done():
                    waiter.set_result(None)
            self._room.set()
            if outcome.counters and self._counters_changed is not None:
                self._counters_changed(outcome.counters)

    async def _let_others_join(self) -> None:
        """Wait a few rounds of the event loop for further starts, as long as each brings some. Under load starts follow
        each other closely, and a commit of many costs about as much as a commit of one.
        """
        if len(self._queue.starts) + self._shared < 3:
            return
        for _ in range(_ROUNDS):
            waiting = len(self._queue.starts)
            await asyncio.sleep(0)
            if len(self._queue.starts) == waiting:
                return

    def _file(self, batch: Batch, *, all_of_it: bool) -> list[asyncio.Future[None]]:
        """Move the rows to be filed into the batch. Returns the waiters of `flush` that this batch satisfies."""
        is_all = self._queue.take_filing(batch, all_of_it=all_of_it or bool(self._flushing))
        if self._due_timer is not None:
            self._due_timer.cancel()
            self._due_timer = None
        self._is_due = not is_all
        if not is_all:
            return []
        flushed, self._flushing = self._flushing, []
        return flushed

    async def _commit(self, batch: Batch, starts: Mapping[int, PendingStart]) -> Outcome:
        begun = self._loop.time()
        self._overdue = self._loop.call_later(self._start_timeout, self._expire, begun)
        try:
            return await self._committer.commit(batch, starts)
        finally:
            self._overdue.cancel()

    def _expire(self, begun: float) -> None:
        """Fail starts that have waited for `start_timeout`, once a commit has run for that long; then check again."""
        now = self._loop.time()
        if self._committer.away_since is None:
            self._committer.away_since = begun
        for start in (*self._trying.values(), *(start for start, _ in self._queue.starts)):
            if now - start.since >= self._start_timeout * 0.99:
                fail(start, "the records' database is away")
        self._overdue = self._loop.call_later(self._start_timeout / 8, self._expire, begun)
