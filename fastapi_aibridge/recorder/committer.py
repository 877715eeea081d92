"""Taking batches to the database: again and again while it is away, and past the rows that it refuses."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from ..errors import RecorderUnavailable
from .batch import Batch, PendingStart, Sink
from .cursor import to_microseconds
from .reservations import Outcome
from .rows import bare_row
from .text import cut, dump, storable
from .verdict import Verdict, judge

log = logging.getLogger(__name__)

_FIRST_DELAY = 0.02
_LONGEST_DELAY = 1.0
_LARGEST_SET_ASIDE = 64 * 1024


@dataclass(slots=True)
class WriterStats:
    commits: int = 0
    rows: int = 0
    failures: int = 0
    """Attempts that the database did not take."""
    refused: int = 0
    """Rows that the database will never take; each is logged."""
    set_aside: int = 0
    """Those of them that are kept in a table of their own."""
    commit_seconds: float = 0.0


class Committer:
    """Writes one batch at a time.

    An error may mean that the database is away, or that one row is at fault, and not every error says which. So the
    committer asks: where the database takes an empty batch and does not take this one, the batch is halved until the
    row that is at fault stands alone. That row is put aside, the others are written.
    """

    def __init__(self, sink: Sink, stats: WriterStats) -> None:
        self._sink = sink
        self._stats = stats
        self._loop = asyncio.get_running_loop()
        self.away_since: float | None = None

    async def commit(self, batch: Batch, starts: Mapping[int, PendingStart]) -> Outcome:
        """Returns when the batch is written, but for the starts that were given up meanwhile and for what the database
        refuses. `starts` are those of the batch's inbox and reservations, by their numbers.
        """
        outcome = Outcome()
        begun = self._loop.time()
        delay = _FIRST_DELAY
        doubts = 0
        pieces = [batch]
        while pieces:
            piece = pieces[-1]
            piece.inbox = [row for row in piece.inbox if not starts[row[1]].waiter.done()]
            if piece.reservations:
                piece.reservations = [one for one in piece.reservations if not starts[one[0]].waiter.done()]
            try:
                became = await self._write(piece)
            except Exception as error:  # noqa: BLE001 - whatever a driver raises, the records must outlive it
                at_fault = await self._is_at_fault(piece, error)
                doubts += at_fault is None
                # What does not say for certain that a row is at fault may pass: a broken connection, a deadlock.
                if at_fault or (at_fault is None and doubts >= (3 if len(piece) == 1 else 2)):
                    doubts, delay = 0, _FIRST_DELAY
                    pieces[-1:] = self._isolated(piece, error, starts)
                    continue
                self._note_failure(error, begun, away=at_fault is False)
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311
                delay = min(delay * 2, _LONGEST_DELAY)
            else:
                if became is not None:
                    outcome.add(became)
                pieces.pop()
                doubts, delay = 0, _FIRST_DELAY
                self._note_success(piece, begun)
                begun = self._loop.time()
        return outcome

    async def _write(self, batch: Batch) -> Outcome | None:
        try:
            return await self._sink.write(batch)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # The driver's own, from a connection that closes: nobody has cancelled this task.
            raise ConnectionError("the database's driver gave the write up") from None

    async def _is_at_fault(self, piece: Batch, error: Exception) -> bool | None:
        """Whether it is a row of these; None where the error alone does not tell, though the database is there."""
        verdict = judge(error)
        if verdict is Verdict.SHORT or not len(piece):
            return False
        if verdict is Verdict.REFUSED:
            return True
        try:
            await self._write(Batch(piece.recorder_id))
        except Exception:  # noqa: BLE001 - the database is away
            return False
        return None

    def _isolated(self, piece: Batch, error: Exception, starts: Mapping[int, PendingStart]) -> list[Batch]:
        """What is to be written in the place of a batch that was refused, the last of the list first."""
        if len(piece) > 1:
            return list(reversed(piece.halves()))
        kind, row = piece.only_row()
        self._stats.refused += 1
        reason = type(error).__name__
        # The error's text may quote what was to be stored.
        log.error("the database refused a row (%s) of an interception: %s", kind, reason)
        rest = Batch(
            piece.recorder_id, stale_days=piece.stale_days, filed_up_to=piece.filed_up_to, settled=piece.settled
        )
        if kind == "inbox":
            fail(starts[row[1]], "the database refused the record of this interception")
        rest.reservations = [one for one in piece.reservations if kind != "inbox" or one[0] != row[1]]
        if kind not in ("inbox", "set_aside"):
            self._stats.set_aside += 1
            rest.set_aside.append(set_aside_row(piece.recorder_id, kind, reason, row))
        pieces = [rest] if len(rest) or rest.stale_days or rest.filed_up_to or rest.has_money else []
        bare = bare_row(kind, row)
        if bare != row:
            # Who asked, when and at which cost is kept in its place at least.
            pieces.append(Batch(piece.recorder_id, stale_days=piece.stale_days))
            getattr(pieces[-1], kind).append(bare)
        return pieces

    def _note_success(self, piece: Batch, begun: float) -> None:
        if self.away_since is not None:
            log.warning("the records' database is back")
            self.away_since = None
        self._stats.commits += 1
        self._stats.rows += len(piece)
        self._stats.commit_seconds += self._loop.time() - begun

    def _note_failure(self, error: Exception, begun: float, *, away: bool) -> None:
        self._stats.failures += 1
        if away and self.away_since is None:
            self.away_since = begun
            log.warning("the records' database does not take records (%s); trying again", type(error).__name__)


def set_aside_row(recorder_id: str, kind: str, reason: str, row: object) -> tuple[str, str, str, str, int]:
    """The values of `SET_ASIDE_COLUMNS`: a row that its table refused, as text that every table takes."""
    body = cut(storable(dump(row)), _LARGEST_SET_ASIDE)
    return recorder_id, kind, reason, body, to_microseconds(datetime.now(UTC))


def fail(start: PendingStart, reason: str) -> None:
    if not start.waiter.done():
        start.waiter.set_exception(RecorderUnavailable(reason))
