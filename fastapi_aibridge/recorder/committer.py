"""Committing batches: repeat them while the database is unavailable, and isolate rows that it refuses."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from ..cancellation import is_cancelled
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
    """Attempts to write that failed and are repeated."""
    refused: int = 0
    """Rows that the database refused for good; each is logged."""
    set_aside: int = 0
    """Refused rows that are kept in `aibridge_set_aside`."""
    commit_seconds: float = 0.0


class Committer:
    """The part of the writer that commits batches, one at a time.

    An error may mean that the database is unavailable or that a row is at fault, and not every error says which. So
    the committer tests with an empty batch: if the database accepts that one but not the real one, the batch is halved
    until the faulty row is alone. That row is set aside, the others are written.
    """

    def __init__(self, sink: Sink, stats: WriterStats) -> None:
        self._sink = sink
        self._stats = stats
        self._loop = asyncio.get_running_loop()
        self.away_since: float | None = None

    async def commit(self, batch: Batch, starts: Mapping[int, PendingStart]) -> Outcome:
        """Write the batch, however long that takes, except starts whose caller gave up and rows that are refused.

        `starts` holds the starts of the batch's inbox rows and reservations by their numbers.
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
                # An error that does not clearly blame a row may be temporary (broken connection, deadlock): retry.
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
            if is_cancelled():
                raise
            # Nobody has cancelled this task: the driver raises this when its connection closes.
            raise ConnectionError("the database's driver gave the write up") from None

    async def _is_at_fault(self, piece: Batch, error: Exception) -> bool | None:
        """Return whether a row of the batch caused the error.

        None means that the error does not tell, although the database accepts an empty batch.
        """
        verdict = judge(error)
        if verdict is Verdict.SHORT or not len(piece):
            return False
        if verdict is Verdict.REFUSED:
            return True
        try:
            await self._write(Batch(piece.recorder_id))
        except Exception:  # noqa: BLE001 - the database is unavailable
            return False
        return None

    def _isolated(self, piece: Batch, error: Exception, starts: Mapping[int, PendingStart]) -> list[Batch]:
        """Return the batches to write instead of a refused one, in reverse order."""
        if len(piece) > 1:
            return list(reversed(piece.halves()))
        kind, row = piece.only_row()
        self._stats.refused += 1
        reason = type(error).__name__
        # The error's text may quote the row's values.
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
            # Keep at least the initiator, the time and the cost of the interception.
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
    """Return the values of `SET_ASIDE_COLUMNS` for a row that its table refused; the row is kept as cut JSON text."""
    body = cut(storable(dump(row)), _LARGEST_SET_ASIDE)
    return recorder_id, kind, reason, body, to_microseconds(datetime.now(UTC))


def fail(start: PendingStart, reason: str) -> None:
    if not start.waiter.done():
        start.waiter.set_exception(RecorderUnavailable(reason))
