"""The rows that one transaction writes, and the protocol of the connection that writes them."""

from __future__ import annotations

from asyncio import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from .reservations import Outcome, Reservation

Row = tuple[Any, ...]
Rows = list[Row]

KINDS = ("inbox", "filed", "ends", "facts", "objects", "set_aside")
"""The names of the batch's fields that hold rows."""


@dataclass(slots=True, eq=False)
class PendingStart:
    """A start or reservation whose caller waits for the commit. If `waiter` is done early, the caller has given up."""

    id: str
    number: int
    """Its number among this recorder's starts; part of the key of its inbox row."""
    row: Row | None
    """Values of `START_COLUMNS`; None for a further reservation of a running interception."""
    waiter: Future[None]
    since: float
    weight: int = 0
    """Approximate bytes in memory."""
    stale_day: int | None = None
    """The day whose sums become stale when the start is filed; None for today."""
    reservation: Reservation | None = None
    tried_again: bool = False
    """Whether the reservation did not fit once and is tried again after ended interceptions are settled."""


@dataclass(slots=True)
class Batch:
    """The content of one transaction. Writing it twice has the same effect as writing it once."""

    recorder_id: str
    inbox: Rows = field(default_factory=list)
    """`INBOX_COLUMNS`: new starts."""
    filed: Rows = field(default_factory=list)
    """`FILED_COLUMNS`: interceptions, running or ended, that move from the inbox to their table."""
    filed_up_to: int = 0
    """This recorder's inbox rows up to this number are deleted."""
    ends: Rows = field(default_factory=list)
    """`END_COLUMNS`: ends of interceptions that are already filed."""
    facts: Rows = field(default_factory=list)
    """`FACT_COLUMNS`."""
    objects: Rows = field(default_factory=list)
    """`OBJECT_COLUMNS`: objects that providers made."""
    set_aside: Rows = field(default_factory=list)
    """`SET_ASIDE_COLUMNS`: rows that their own table refused."""
    stale_days: set[int] = field(default_factory=set)
    """Days whose sums become stale, because the batch writes interceptions of these days."""
    reservations: list[tuple[int, Reservation]] = field(default_factory=list)
    """Pairs of a start's number and its reservation. A start whose reservation does not fit is not written."""
    settled: list[tuple[str, int]] = field(default_factory=list)
    """Pairs of an ended interception's id and its cost in micro-dollars."""

    @property
    def has_money(self) -> bool:
        return bool(self.reservations or self.settled)

    def __len__(self) -> int:
        return sum([len(getattr(self, kind)) for kind in KINDS])

    def halves(self) -> tuple[Batch, Batch]:
        """Split the rows into two batches, to be written in this order: only the second one clears the inbox."""
        first = Batch(self.recorder_id, stale_days=self.stale_days)
        second = Batch(self.recorder_id, stale_days=self.stale_days, filed_up_to=self.filed_up_to)
        left = len(self) // 2
        for kind in KINDS:
            rows: Rows = getattr(self, kind)
            getattr(first, kind).extend(rows[:left])
            getattr(second, kind).extend(rows[left:])
            left -= min(left, len(rows))
        later = {row[1] for row in second.inbox}
        for one in self.reservations:
            (second if one[0] in later else first).reservations.append(one)
        second.settled = self.settled
        return first, second

    def only_row(self) -> tuple[str, Row]:
        """Return the kind and the row of a batch that has one row."""
        return next((kind, getattr(self, kind)[0]) for kind in KINDS if getattr(self, kind))


class Sink(Protocol):
    """A database connection that serves one writer."""

    async def write(self, batch: Batch) -> Outcome | None:
        """Write the batch in one transaction, without the starts whose reservation does not fit. Durable on return.

        An empty batch tests whether the database is available. Returns None for a batch without reservations and
        settlements.
        """

    async def close(self) -> None: ...
