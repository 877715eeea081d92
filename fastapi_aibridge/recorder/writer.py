"""The one task that writes: whatever is asked for while a commit runs goes into the next one together."""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ..errors import RecorderUnavailable
from .batch import Batch, PendingStart, Sink, is_refusal
from .records import Ending, Status
from .rows import NO_TOKENS, end_row

log = logging.getLogger(__name__)

_BATCH_ROWS = 2000
_BATCH_BYTES = 8 * 1024 * 1024
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


class Writer:
    """Group commit on a sink.

    At most `max_pending` rows and `max_bytes` of facts wait; whoever brings more waits too. A start waits for
    `start_timeout` seconds at most, and not at all once the database has been away for that long.
    """

    def __init__(
        self, sink: Sink, *, max_pending: int = 10_000, max_bytes: int = 64 * 1024 * 1024, start_timeout: float = 3.0
    ) -> None:
        self.stats = WriterStats()
        self._sink = sink
        self._max_pending = max_pending
        self._max_bytes = max_bytes
        self._start_timeout = start_timeout
        self._loop = asyncio.get_running_loop()
        self._queue = Batch()
        self._current = Batch()
        self._away_since: float | None = None
        self._overdue: asyncio.TimerHandle
        self._closing = False
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._task = self._loop.create_task(self._run(), name="aibridge-recorder-writer")

    @property
    def pending(self) -> int:
        """Rows that are not durable yet."""
        return len(self._queue) + len(self._current)

    @property
    def available(self) -> bool:
        """Whether the database took what it was given last."""
        return self._away_since is None

    def _is_full(self) -> bool:
        return (
            len(self._queue) + len(self._current) >= self._max_pending
            or self._queue.size + self._current.size >= self._max_bytes
        )

    async def start(self, interception_id: str, row: tuple[Any, ...], unsealed: int | None = None) -> None:
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
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._queue.starts.append(PendingStart(interception_id, row, waiter, now))
        if unsealed is not None:
            self._queue.unsealed.add(unsealed)
        self._wake.set()
        try:
            await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled() and waiter.exception() is None:
                self._void(interception_id, Status.CANCELLED)
            raise

    async def put(
        self, end: tuple[Any, ...] | None, facts: tuple[Any, ...] | None, unsealed: int | None = None
    ) -> None:
        """Returns when there is room; the rows are written however long that takes."""
        try:
            while self._is_full() and not self._task.done():
                await self._wait_for_room()
        finally:
            # Also where the caller is cancelled while it waits: an end is never lost, the bound gives a little.
            if end is not None:
                self._queue.ends.append(end)
            if facts is not None:
                self._queue.facts.append(facts)
                self._queue.size += len(facts[2])
            if unsealed is not None:
                self._queue.unsealed.add(unsealed)
            self._wake.set()

    async def close(self, timeout: float) -> int:  # noqa: ASYNC109
        """Write what waits, for so many seconds at most. Returns how many rows could not be written."""
        self._closing = True
        self._wake.set()
        self._room.set()
        done, _ = await asyncio.wait([self._task], timeout=timeout)
        if not done:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=1)
        for start in (*self._current.starts, *self._queue.starts):
            _fail(start, "the recorder is closed")
        left = self.pending
        await self._sink.close()
        return left

    async def _wait_for_room(self) -> None:
        while self._is_full():
            self._room.clear()
            await self._room.wait()

    async def _run(self) -> None:
        while True:
            if not self._queue:
                if self._closing:
                    return
                self._wake.clear()
                await self._wake.wait()
                continue
            batch = self._current = self._queue.take(_BATCH_ROWS, _BATCH_BYTES)
            # Who gave up before the first try has left nothing behind.
            batch.starts = [start for start in batch.starts if not start.waiter.done()]
            if batch:
                await self._commit(batch)
            self._current = Batch()
            self._room.set()

    async def _commit(self, batch: Batch) -> None:
        """Returns when the whole batch is written or its starts have given up, however long that takes."""
        begun = self._loop.time()
        self._overdue = self._loop.call_later(self._start_timeout, self._expire, begun)
        delay = _FIRST_DELAY
        try:
            while True:
                tried = batch.starts
                try:
                    await self._write(batch)
                except Exception as error:  # noqa: BLE001 - whatever a driver raises, the records must outlive it
                    self._note_failure(error, begun)
                else:
                    self._note_success(len(batch), begun)
                    break
                # Nobody knows whether a commit that failed took place, so starts that were given up get an end.
                self._void_abandoned(tried, batch)
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311
                delay = min(delay * 2, _LONGEST_DELAY)
        finally:
            self._overdue.cancel()
        for start in batch.starts:
            if start.waiter.done():
                self._void_one(start)
            else:
                start.waiter.set_result(None)

    async def _write(self, batch: Batch) -> None:
        try:
            await self._sink.write([start.row for start in batch.starts], batch.ends, batch.facts, batch.unsealed)
        except Exception as error:
            if not is_refusal(error):
                raise
            await self._write_singly(batch)

    async def _write_singly(self, batch: Batch) -> None:
        """One row that the database refuses must not take those with it that share its commit."""
        if batch.unsealed:
            await self._sink.write([], [], [], batch.unsealed)
        for start in batch.starts[:]:
            if not await self._is_taken([start.row], [], []):
                batch.starts.remove(start)
                _fail(start, "the database refused the record of this interception")
        for end in batch.ends:
            await self._is_taken([], [end], [])
        for facts in batch.facts:
            await self._is_taken([], [], [facts])

    async def _is_taken(self, starts: list[Any], ends: list[Any], facts: list[Any]) -> bool:
        try:
            await self._sink.write(starts, ends, facts, set())
        except Exception as error:
            if not is_refusal(error):
                raise
            kind = "start" if starts else "end" if ends else "facts"
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
        for start in (*self._current.starts, *self._queue.starts):
            if now - start.since >= self._start_timeout * 0.99:
                _fail(start, "the records' database is away")
        self._overdue = self._loop.call_later(self._start_timeout / 8, self._expire, begun)

    def _void_abandoned(self, tried: list[PendingStart], batch: Batch) -> None:
        batch.starts = [start for start in tried if not start.waiter.done()]
        for start in tried:
            if start.waiter.done():
                batch.ends.append(_void_row(start))

    def _void_one(self, start: PendingStart) -> None:
        self._queue.ends.append(_void_row(start))

    def _void(self, interception_id: str, status: Status) -> None:
        self._queue.ends.append(end_row(interception_id, Ending(status=status, ended_at=_now()), NO_TOKENS))
        self._wake.set()


def _void_row(start: PendingStart) -> tuple[Any, ...]:
    cancelled = start.waiter.cancelled()
    status = Status.CANCELLED if cancelled else Status.FAILED
    error = None if cancelled else "refused: its record could not be made durable in time"
    return end_row(start.id, Ending(status=status, ended_at=_now(), error=error), NO_TOKENS)


def _fail(start: PendingStart, reason: str) -> None:
    if not start.waiter.done():
        start.waiter.set_exception(RecorderUnavailable(reason))


def _now() -> datetime:
    return datetime.now(UTC)
