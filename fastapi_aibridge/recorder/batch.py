"""What one commit takes to the database, and the side of the database that takes it."""

from __future__ import annotations

from asyncio import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from .reservations import Outcome, Reservation

Row = tuple[Any, ...]
Rows = list[Row]

KINDS = ("inbox", "filed", "ends", "facts", "objects", "set_aside")
"""The members of a batch that hold rows."""


@dataclass(slots=True, eq=False)
class PendingStart:
    """A start that somebody waits for; one whose waiter is done has been given up."""

    id: str
    number: int
    """Its place in the inbox."""
    row: Row | None
    """None for a further reservation of an interception that runs."""
    waiter: Future[None]
    since: float
    weight: int = 0
    """Bytes that it holds, roughly."""
    stale_day: int | None = None
    """The day whose sums no longer hold when it is filed."""
    reservation: Reservation | None = None
    tried_again: bool = False
    """It did not fit, and was put into a second commit together with all that has ended meanwhile."""


@dataclass(slots=True)
class Batch:
    """What goes into one transaction. Its rows may be written twice without harm."""

    recorder_id: str
    inbox: Rows = field(default_factory=list)
    """`INBOX_COLUMNS`: starts, as they came."""
    filed: Rows = field(default_factory=list)
    """`FILED_COLUMNS`: what moves from the inbox to its place, ended or not."""
    filed_up_to: int = 0
    """What leaves the inbox: this recorder's numbers up to this one."""
    ends: Rows = field(default_factory=list)
    """`END_COLUMNS`: of interceptions that are in their place already."""
    facts: Rows = field(default_factory=list)
    """`FACT_COLUMNS`."""
    objects: Rows = field(default_factory=list)
    """`OBJECT_COLUMNS`: what was made at providers."""
    set_aside: Rows = field(default_factory=list)
    """`SET_ASIDE_COLUMNS`: what no other table took."""
    stale_days: set[int] = field(default_factory=set)
    """Days whose sums no longer hold, because something old was written."""
    reservations: list[tuple[int, Reservation]] = field(default_factory=list)
    """With the numbers of their starts, none of which goes into the inbox if it does not fit."""
    settled: list[tuple[str, int]] = field(default_factory=list)
    """Interceptions that have ended, and what they have cost."""

    @property
    def has_money(self) -> bool:
        return bool(self.reservations or self.settled)

    def __len__(self) -> int:
        return sum([len(getattr(self, kind)) for kind in KINDS])

    def halves(self) -> tuple[Batch, Batch]:
        """The same rows as two batches, to be written in this order: the inbox is cleared by the second."""
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
        """The kind and the row of a batch of one."""
        return next((kind, getattr(self, kind)[0]) for kind in KINDS if getattr(self, kind))


class Sink(Protocol):
    """One connection to the database, for one writer."""

    async def write(self, batch: Batch) -> Outcome | None:
        """All of it in one transaction, durable when it returns, but for starts whose reservation does not fit.

        An empty batch tells whether the database is there.
        """

    async def close(self) -> None: ...
