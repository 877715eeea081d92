"""The one task that writes: whatever is asked for while a commit runs goes into the next one together.

A start goes into the inbox at once, a narrow table without indexes, so that a commit for one start is cheap. A moment
later many of them move to their place together, with what has become of them: most of the cost of a row is in the
pages of the indexes that it touches, and rows that are written together share pages.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

from ..errors import RecorderUnavailable
from .batch import Batch, PendingStart, Row, Rows, Sink, is_refusal
from .records import Ending, Status
from .rows import NO_TOKENS, end_row, filed_row, inbox_row

log = logging.getLogger(__name__)

_LARGEST_INBOX = 2000
_ROUNDS = 6
"""Of the event loop, for which a commit waits at most."""
_LARGEST_FILING = 256
_LARGEST_FACTS = 8 * 1024 * 1024
_FILING_DELAY = 0.05
_FIRST_DELAY = 0.02
_LONGEST_DELAY = 1.0


@dataclass(slots=True)
class WriterStats:
    commits: int = 0
    rows: int = 0
    failures: int = 0
    """Attempts that the database did not take."""
    refused: int = 0
    """Rows that the database will never take; each is logged."""
    commit_seconds: float = 0.0


@dataclass(slots=True, eq=False)
class _Unfiled:
    """An interception whose start is durable in the inbox."""

    number: int
    row: Row
    unsealed: int | None
    end: Row | None = None


class Writer:
    """Group commit on a sink.

    At most `max_pending` rows and `max_bytes` of facts wait; whoever brings more waits too. A start waits for
    `start_timeout` seconds at most, and not at all once the database has been away for that long.
    """

    def __init__(
        self,
        sink: Sink,
        recorder_id: str,
        *,
        max_pending: int = 10_000,
        max_bytes: int = 64 * 1024 * 1024,
        start_timeout: float = 3.0,
        filing_delay: float = _FILING_DELAY,
    ) -> None:
        self.stats = WriterStats()
        self._sink = sink
        self._recorder_id = recorder_id
        self._max_pending = max_pending
        self._max_bytes = max_bytes
        self._start_timeout = start_timeout
        self._filing_delay = filing_delay
        self._loop = asyncio.get_running_loop()
        # What waits for a commit.
        self._starts: list[tuple[PendingStart, int | None]] = []
        self._unfiled: dict[str, _Unfiled] = {}
        self._ends: list[tuple[Row, int | None]] = []
        self._facts: Rows = []
        self._facts_size = 0
        # What is being committed.
        self._current = Batch(recorder_id)
        self._current_size = 0
        self._trying: list[PendingStart] = []
        self._shared = 0  # starts in the last commit
        # The inbox: the last number given, the last that may be in it, the last that has left it.
        self._number = 0
        self._inbox_last = 0
        self._inbox_filed = 0
        self._is_due = False
        self._due_timer: asyncio.TimerHandle | None = None
        self._flushing: list[asyncio.Future[None]] = []
        self._away_since: float | None = None
        self._overdue: asyncio.TimerHandle
        self._closing = False
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._task = self._loop.create_task(self._run(), name="aibridge-recorder-writer")

    @property
    def pending(self) -> int:
        """Rows that are not in their place yet."""
        return len(self._starts) + len(self._unfiled) + len(self._ends) + len(self._facts) + len(self._current)

    @property
    def available(self) -> bool:
        """Whether the database took what it was given last."""
        return self._away_since is None

    async def start(self, interception_id: str, row: Row, unsealed: int | None = None) -> None:
        """Durable when it returns. Raises `RecorderUnavailable`."""
        now = self._loop.time()
        if self._closing:
            raise RecorderUnavailable("the recorder is closed")
        if self._away_since is not None and now - self._away_since >= self._start_timeout:
            raise RecorderUnavailable("the records' database is away")
        if self._is_full():
            try:
                async with asyncio.timeout(self._start_timeout):
                    await self._wait_for_room()
            except TimeoutError:
                raise RecorderUnavailable("too many records wait for their database") from None
        self._number += 1
        start = PendingStart(interception_id, self._number, row, self._loop.create_future(), now)
        self._starts.append((start, unsealed))
        self._wake.set()
        try:
            await start.waiter
        except asyncio.CancelledError:
            if not start.waiter.cancelled() and start.waiter.exception() is None:
                self._take_back(interception_id)
            raise

    async def put(self, interception_id: str, end: Row | None, facts: Row | None, unsealed: int | None = None) -> None:
        """An end, facts or both. Returns when there is room; they are written however long that takes."""
        try:
            while self._is_full() and not self._task.done():
                await self._wait_for_room()
        finally:
            # Also where the caller is cancelled while it waits: an end is never lost, the bound gives a little.
            if end is not None:
                unfiled = self._unfiled.get(interception_id)
                if unfiled is not None:
                    unfiled.end = end
                else:
                    self._ends.append((end, unsealed))
            if facts is not None:
                self._facts.append(facts)
                self._facts_size += len(facts[2])
            self._schedule_filing()

    async def flush(self, timeout: float = 1.0) -> None:  # noqa: ASYNC109
        """What was recorded before can be read when it returns; where the database is away or slow, some of it."""
        if self._closing or self._away_since is not None or not self._is_filing_needed():
            return
        waiter = self._loop.create_future()
        self._flushing.append(waiter)
        self._wake.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await waiter

    async def close(self, timeout: float) -> int:  # noqa: ASYNC109
        """Write what waits, for so many seconds at most. Returns how many rows could not be written."""
        self._closing = True
        self._wake.set()
        self._room.set()
        done, _ = await asyncio.wait([self._task], timeout=timeout)
        if not done:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=1)
        if self._due_timer is not None:
            self._due_timer.cancel()
        for start in (*self._trying, *(start for start, _ in self._starts)):
            _fail(start, "the recorder is closed")
        left = self.pending
        await self._sink.close()
        return left

    def _take_back(self, interception_id: str) -> None:
        """For a start that is durable but whose caller went away before it knew: nobody else will end it."""
        if self._unfiled.pop(interception_id, None) is None:
            ending = Ending(status=Status.CANCELLED, ended_at=datetime.now(UTC))
            self._ends.append((end_row(interception_id, ending, NO_TOKENS), None))
        self._schedule_filing()

    def _is_full(self) -> bool:
        return self.pending >= self._max_pending or self._facts_size + self._current_size >= self._max_bytes

    async def _wait_for_room(self) -> None:
        while self._is_full() and not self._task.done():
            self._room.clear()
            self._is_due = True
            self._wake.set()
            await self._room.wait()

    def _is_filing_needed(self) -> bool:
        return bool(self._unfiled or self._ends or self._facts or self._inbox_last > self._inbox_filed)

    def _schedule_filing(self) -> None:
        if len(self._unfiled) + len(self._ends) + len(self._facts) >= _LARGEST_FILING:
            self._is_due = True
            self._wake.set()
        elif self._due_timer is None and not self._is_due:
            self._due_timer = self._loop.call_later(self._filing_delay, self._filing_is_due)

    def _filing_is_due(self) -> None:
        self._due_timer = None
        self._is_due = True
        self._wake.set()

    async def _run(self) -> None:
        while True:
            is_filing = self._is_filing_needed() and bool(self._is_due or self._flushing or self._closing)
            if not self._starts and not is_filing:
                if self._closing:
                    return
                self._is_due = False
                self._wake.clear()
                await self._wake.wait()
                continue
            if self._starts:
                await self._let_others_join()
            # Who gave up before the first try has left nothing behind.
            taken = [(start, unsealed) for start, unsealed in self._starts[:_LARGEST_INBOX] if not start.waiter.done()]
            del self._starts[:_LARGEST_INBOX]
            batch = Batch(self._recorder_id)
            flushed = self._file(batch) if is_filing else []
            self._current = batch
            self._trying = [start for start, _ in taken]
            if self._trying or is_filing:
                await self._commit(batch)
            self._acknowledge(taken)
            self._inbox_filed = max(self._inbox_filed, batch.filed_up_to)
            self._current, self._current_size = Batch(self._recorder_id), 0
            for waiter in flushed:
                if not waiter.done():
                    waiter.set_result(None)
            self._room.set()

    async def _let_others_join(self) -> None:
        """Under load a start is soon followed by others: wait a few rounds of the event loop for them, as long as each
        brings some. A commit costs about as much for many as for one.
        """
        if len(self._starts) + self._shared < 3:
            return
        for _ in range(_ROUNDS):
            waiting = len(self._starts)
            await asyncio.sleep(0)
            if len(self._starts) == waiting:
                return

    def _file(self, batch: Batch) -> list[asyncio.Future[None]]:
        """Take what moves to its place; returns who waits for that."""
        limit = _LARGEST_INBOX if self._flushing else _LARGEST_FILING
        for interception_id in list(islice(self._unfiled, limit)):
            unfiled = self._unfiled.pop(interception_id)
            batch.filed.append(filed_row(unfiled.row, unfiled.end))
            batch.filed_up_to = unfiled.number
            if unfiled.unsealed is not None:
                batch.unsealed.add(unfiled.unsealed)
        if not self._unfiled:
            batch.filed_up_to = self._inbox_last
        for end, unsealed in self._ends[:limit]:
            batch.ends.append(end)
            if unsealed is not None:
                batch.unsealed.add(unsealed)
        del self._ends[:limit]
        while len(batch.facts) < min(limit, len(self._facts)) and self._current_size < _LARGEST_FACTS:
            facts = self._facts[len(batch.facts)]
            batch.facts.append(facts)
            self._current_size += len(facts[2])
        del self._facts[: len(batch.facts)]
        self._facts_size -= self._current_size
        if self._due_timer is not None:
            self._due_timer.cancel()
            self._due_timer = None
        self._is_due = bool(self._unfiled or self._ends or self._facts)
        if self._is_due:
            return []
        flushed, self._flushing = self._flushing, []
        return flushed

    def _acknowledge(self, taken: list[tuple[PendingStart, int | None]]) -> None:
        for start, unsealed in taken:
            if not start.waiter.done():
                start.waiter.set_result(None)
                self._unfiled[start.id] = _Unfiled(start.number, start.row, unsealed)
        self._trying = []
        self._shared = len(taken)
        if taken:
            self._inbox_last = max(self._inbox_last, taken[-1][0].number)
            self._schedule_filing()

    async def _commit(self, batch: Batch) -> None:
        """Returns when the batch is written, but for the starts that were given up meanwhile."""
        begun = self._loop.time()
        self._overdue = self._loop.call_later(self._start_timeout, self._expire, begun)
        delay = _FIRST_DELAY
        try:
            while True:
                batch.inbox = [
                    inbox_row(self._recorder_id, start.number, start.row)
                    for start in self._trying
                    if not start.waiter.done()
                ]
                try:
                    await self._write(batch)
                except Exception as error:  # noqa: BLE001 - whatever a driver raises, the records must outlive it
                    self._note_failure(error, begun)
                else:
                    self._note_success(len(batch), begun)
                    return
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311
                delay = min(delay * 2, _LONGEST_DELAY)
        finally:
            self._overdue.cancel()

    async def _write(self, batch: Batch) -> None:
        try:
            await self._sink.write(batch)
        except Exception as error:
            if not is_refusal(error):
                raise
            await self._write_singly(batch)

    async def _write_singly(self, batch: Batch) -> None:
        """One row that the database refuses must not take those with it that share its commit."""
        if batch.unsealed:
            await self._sink.write(Batch(self._recorder_id, unsealed=batch.unsealed))
        for start, row in zip([start for start in self._trying if not start.waiter.done()], batch.inbox, strict=False):
            if not await self._is_taken("start", Batch(self._recorder_id, inbox=[row])):
                _fail(start, "the database refused the record of this interception")
        for row in batch.filed:
            await self._is_taken("row", Batch(self._recorder_id, filed=[row]))
        for row in batch.ends:
            await self._is_taken("end", Batch(self._recorder_id, ends=[row]))
        for row in batch.facts:
            await self._is_taken("facts", Batch(self._recorder_id, facts=[row]))
        if batch.filed_up_to:
            await self._sink.write(Batch(self._recorder_id, filed_up_to=batch.filed_up_to))

    async def _is_taken(self, kind: str, batch: Batch) -> bool:
        try:
            await self._sink.write(batch)
        except Exception as error:
            if not is_refusal(error):
                raise
            self.stats.refused += 1
            # The error's text may quote what was to be stored.
            log.error("the database refused the %s of an interception: %s", kind, type(error).__name__)  # noqa: TRY400
            return False
        return True

    def _note_success(self, rows: int, begun: float) -> None:
        if self._away_since is not None:
            log.warning("the records' database is back; %d records were waiting", self.pending)
            self._away_since = None
        self.stats.commits += 1
        self.stats.rows += rows
        self.stats.commit_seconds += self._loop.time() - begun

    def _note_failure(self, error: Exception, begun: float) -> None:
        self.stats.failures += 1
        if self._away_since is None:
            self._away_since = begun
            log.warning("the records' database does not take records (%s); trying again", type(error).__name__)

    def _expire(self, begun: float) -> None:
        """A commit has run for `start_timeout`: from now on nobody waits for it longer than that."""
        now = self._loop.time()
        if self._away_since is None:
            self._away_since = begun
        for start in (*self._trying, *(start for start, _ in self._starts)):
            if now - start.since >= self._start_timeout * 0.99:
                _fail(start, "the records' database is away")
        self._overdue = self._loop.call_later(self._start_timeout / 8, self._expire, begun)


def _fail(start: PendingStart, reason: str) -> None:
    if not start.waiter.done():
        start.waiter.set_exception(RecorderUnavailable(reason))
