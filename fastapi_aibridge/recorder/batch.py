"""What one commit takes to the database, and the side of the database that takes it."""

from __future__ import annotations

from asyncio import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

Row = tuple[Any, ...]
Rows = list[Row]


@dataclass(slots=True, eq=False)
class PendingStart:
    """A start that somebody waits for; one whose waiter is done has been given up."""

    id: str
    number: int
    """Its place in the inbox."""
    row: Row
    waiter: Future[None]
    since: float


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
    unsealed: set[int] = field(default_factory=set)
    """Days whose sums no longer hold, because something old was written."""

    def __len__(self) -> int:
        return len(self.inbox) + len(self.filed) + len(self.ends) + len(self.facts)


class Sink(Protocol):
    """One connection to the database, for one writer."""

    async def write(self, batch: Batch) -> None:
        """All of it in one transaction, durable when it returns. Raises what `is_refusal` can judge."""

    async def close(self) -> None: ...


def is_refusal(error: BaseException) -> bool:
    """Whether the database refused these very values, so that trying again is in vain; otherwise it is away."""
    cause: BaseException | None = error
    while cause is not None:
        state = getattr(cause, "sqlstate", None)
        if isinstance(state, str):
            return state.startswith(("22", "23"))
        if type(cause).__module__ == "sqlite3":
            return type(cause).__name__ in {"IntegrityError", "DataError", "InterfaceError", "ProgrammingError"}
        if isinstance(cause, (ValueError, TypeError, OverflowError)):
            return True
        cause = cause.__cause__
    return False
