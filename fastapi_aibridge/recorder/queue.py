"""The queue of starts, ends, facts, objects and settlements that wait for a commit."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

from .batch import Batch, PendingStart, Row, Rows
from .records import Ending, Status
from .reservations import Outcome, OverBudget, Reservation
from .rows import NO_TOKENS, end_row, filed_row, inbox_row

_LARGEST_INBOX = 2000
_LARGEST_FILING = 256
_LARGEST_FACTS = 1024 * 1024
"""Bytes of texts that one commit files. Limited because starts that arrive meanwhile wait for it."""
_ROW = 256
"""Approximate bytes of a row without its texts."""


@dataclass(slots=True, eq=False)
class _Unfiled:
    """An interception whose start is durable in the inbox, but not in its table yet."""

    start: PendingStart
    row: Row
    weight: int
    end: Row | None = None


class WriteQueue:
    """Starts that wait for their first commit, and rows that wait to be filed: starts, ends, facts and objects."""

    def __init__(self, recorder_id: str) -> None:
        self._recorder_id = recorder_id
        self._loop = asyncio.get_running_loop()
        self.starts: list[tuple[PendingStart, Row | None]] = []
        """Starts and their inbox rows, which are None for further reservations."""
        self.unfiled: dict[str, _Unfiled] = {}
        self._ends: list[tuple[Row, int | None]] = []
        self._facts: Rows = []
        self._objects: Rows = []
        self._reserving: set[str] = set()
        """Ids of interceptions that may hold reservations."""
        self._settled: dict[str, int] = {}
        """The cost of ended interceptions that may hold reservations, by id."""
        self.weight = 0
        """Approximate bytes of everything in the queue."""
        # Numbers of inbox rows: the last one given, the last one committed, the last one deleted.
        self._number = 0
        self._inbox_last = 0
        self._inbox_filed = 0

    def __len__(self) -> int:
        return len(self.starts) + self.waiting_to_be_filed

    @property
    def waiting_to_be_filed(self) -> int:
        return self._rows_to_be_filed + len(self._settled)

    @property
    def _rows_to_be_filed(self) -> int:
        return len(self.unfiled) + len(self._ends) + len(self._facts) + len(self._objects)

    @property
    def is_filing_needed(self) -> bool:
        return bool(
            self.unfiled
            or self._ends
            or self._facts
            or self._objects
            or self._settled
            or self._inbox_last > self._inbox_filed
        )

    @property
    def is_settling_due(self) -> bool:
        """Whether a start waits for the settlement of ended interceptions."""
        return bool(self._settled) and any(start.tried_again for start, _ in self.starts)

    @property
    def is_filing_full(self) -> bool:
        """Whether enough rows wait to fill one commit. Settlements do not count: they cost next to nothing."""
        return self._rows_to_be_filed >= _LARGEST_FILING

    def add_start(
        self, interception_id: str, row: Row, stale_day: int | None, asked: Reservation | None = None
    ) -> PendingStart:
        self._number += 1
        inbox = inbox_row(self._recorder_id, self._number, row)
        waiter, weight = self._loop.create_future(), weigh(inbox)
        start = PendingStart(interception_id, self._number, row, waiter, self._loop.time(), weight, stale_day, asked)
        self.starts.append((start, inbox))
        self.weight += weight
        if asked is not None:
            self._reserving.add(interception_id)
        return start

    def add_reservation(self, asked: Reservation) -> PendingStart:
        """Add a further reservation of a running interception."""
        self._number += 1
        waiter = self._loop.create_future()
        start = PendingStart(
            asked.interception_id, self._number, None, waiter, self._loop.time(), _ROW, reservation=asked
        )
        self.starts.append((start, None))
        self.weight += _ROW
        self._reserving.add(asked.interception_id)
        return start

    def settle(self, interception_id: str, cost: int) -> None:
        """Settle an ended interception at its cost, together with its end. Does nothing if nothing was reserved."""
        if interception_id in self._reserving:
            self._reserving.discard(interception_id)
            self._settled[interception_id] = cost

    def expect_end(self, interception_id: str) -> None:
        """Note that an interception started by another recorder, which may have counted spending, ends here."""
        self._reserving.add(interception_id)

    def add_end(self, interception_id: str, end: Row, stale_day: int | None, cost: int | None = 0) -> None:
        """Add an end. If `cost` is None, the outcome may become known later, and nothing is settled here: the
        reservation is released with the recorder.
        """
        if cost is None:
            self._reserving.discard(interception_id)
        else:
            self.settle(interception_id, cost)
        self.weight += weigh(end)
        unfiled = self.unfiled.get(interception_id)
        if unfiled is None:
            self._ends.append((end, stale_day))
            return
        unfiled.weight += weigh(end)
        unfiled.end = end

    def add_facts(self, row: Row) -> None:
        self._facts.append(row)
        self.weight += weigh(row)

    def add_object(self, row: Row) -> None:
        self._objects.append(row)
        self.weight += weigh(row)

    def take_back(self, interception_id: str) -> None:
        """End a durable start whose caller was cancelled before it learned of it: nobody else will end it."""
        unfiled = self.unfiled.pop(interception_id, None)
        if unfiled is not None:
            self.settle(interception_id, 0)
            self.weight -= unfiled.weight
            return
        ending = Ending(status=Status.CANCELLED, ended_at=datetime.now(UTC))
        self.add_end(interception_id, end_row(interception_id, ending, NO_TOKENS), None)

    def take_starts(self, batch: Batch) -> dict[int, PendingStart]:
        """Move waiting starts into the batch, without those whose caller gave up. Returns the moved ones by number."""
        taken: dict[int, PendingStart] = {}
        for start, inbox in self.starts[:_LARGEST_INBOX]:
            self.weight -= start.weight
            if start.waiter.done():
                if start.row is not None:
                    self._reserving.discard(start.id)
                continue
            if inbox is not None:
                batch.inbox.append(inbox)
            if start.reservation is not None:
                batch.reservations.append((start.number, start.reservation))
            taken[start.number] = start
        del self.starts[:_LARGEST_INBOX]
        return taken

    def take_filing(self, batch: Batch, *, all_of_it: bool) -> bool:
        """Move rows that wait to be filed into the batch. Returns whether none are left."""
        limit = _LARGEST_INBOX if all_of_it else _LARGEST_FILING
        room = _LARGEST_FACTS
        before = self.weight
        for interception_id in list(islice(self.unfiled, limit)):
            unfiled = self.unfiled.pop(interception_id)
            batch.filed.append(filed_row(unfiled.row, unfiled.end))
            if unfiled.end is not None:
                self._take_settled(batch, interception_id)
            batch.filed_up_to = unfiled.start.number
            if unfiled.start.stale_day is not None:
                batch.stale_days.add(unfiled.start.stale_day)
            self.weight -= unfiled.weight
            if before - self.weight > room:
                break
        if not self.unfiled:
            batch.filed_up_to = self._inbox_last
        for end, stale_day in self._ends[:limit]:
            batch.ends.append(end)
            self._take_settled(batch, end[0])
            self.weight -= weigh(end)
            if stale_day is not None:
                batch.stale_days.add(stale_day)
        del self._ends[: len(batch.ends)]
        if not self.unfiled and not self._ends and self._settled:
            # Settlements of starts whose callers gave up while they were written; these have no end to go with.
            batch.settled += self._settled.items()
            self._settled = {}
        batch.objects = self._take(self._objects, limit, room)
        batch.facts = self._take(self._facts, limit, room)
        return not self.waiting_to_be_filed

    def _take_settled(self, batch: Batch, interception_id: str) -> None:
        cost = self._settled.pop(interception_id, None) if self._settled else None
        if cost is not None:
            batch.settled.append((interception_id, cost))

    def _take(self, waiting: Rows, limit: int, room: int) -> Rows:
        taken: Rows = []
        while len(taken) < min(limit, len(waiting)) and room > 0:
            row = waiting[len(taken)]
            taken.append(row)
            room -= weigh(row)
            self.weight -= weigh(row)
        del waiting[: len(taken)]
        return taken

    def committed(self, batch: Batch, starts: dict[int, PendingStart], outcome: Outcome) -> None:
        """Resolve the starts of a written batch, so that their callers continue."""
        self._inbox_filed = max(self._inbox_filed, batch.filed_up_to)
        for start in starts.values():
            full = outcome.refused.get(start.number) if outcome.refused else None
            if full is not None:
                self._refuse(start, full)
            elif start.waiter.done():
                if start.row is not None:
                    self.settle(start.id, 0)
            else:
                start.waiter.set_result(None)
                if start.row is not None:
                    self.unfiled[start.id] = _Unfiled(start, start.row, start.weight)
                    self.weight += start.weight
        if starts:
            self._inbox_last = max(self._inbox_last, *starts)

    def _refuse(self, start: PendingStart, counter: int) -> None:
        """Refuse a start that does not fit `counter`. If settlements wait, try it once more after them: a client that
        has its complete response may rely on the unused part of its reservation.
        """
        if self._settled and not start.tried_again and not start.waiter.done():
            start.tried_again = True
            self._number += 1
            start.number = self._number
            inbox = None if start.row is None else inbox_row(self._recorder_id, start.number, start.row)
            self.starts.append((start, inbox))
            self.weight += start.weight
            return
        if start.row is not None:
            self._reserving.discard(start.id)
        if not start.waiter.done():
            start.waiter.set_exception(OverBudget(counter))


def weigh(row: Row) -> int:
    """Return the approximate bytes of a row."""
    return _ROW + sum([len(value) for value in row if value.__class__ is str])
