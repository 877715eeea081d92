"""What one commit takes to the database, and the side of the database that takes it."""

from __future__ import annotations

from asyncio import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

Rows = list[tuple[Any, ...]]


@dataclass(slots=True, eq=False)
class PendingStart:
    """A start that somebody waits for. A waiter that is done before the commit has given up."""

    id: str
    row: tuple[Any, ...]
    waiter: Future[None]
    since: float


@dataclass(slots=True)
class Batch:
    """Rows whose order among each other does not matter, and that may be written twice without harm."""

    starts: list[PendingStart] = field(default_factory=list)
    ends: Rows = field(default_factory=list)
    facts: Rows = field(default_factory=list)
    unsealed: set[int] = field(default_factory=set)
    """Days whose sums no longer hold, because something old was written."""
    size: int = 0
    """Bytes of the facts, about."""

    def __len__(self) -> int:
        return len(self.starts) + len(self.ends) + len(self.facts)

    def take(self, rows: int, size: int) -> Batch:
        """Splits off a batch of about so many rows and bytes."""
        if len(self) <= rows and self.size <= size:
            taken = Batch(self.starts, self.ends, self.facts, self.unsealed, self.size)
            self.starts, self.ends, self.facts, self.unsealed, self.size = [], [], [], set(), 0
            return taken
        facts, weight = 0, 0
        while facts < min(rows, len(self.facts)) and (weight < size or not facts):
            weight += len(self.facts[facts][2])
            facts += 1
        taken = Batch(self.starts[:rows], self.ends[:rows], self.facts[:facts], self.unsealed, weight)
        del self.starts[:rows], self.ends[:rows], self.facts[:facts]
        self.unsealed = set(self.unsealed)
        self.size -= weight
        return taken


class Sink(Protocol):
    """One connection to the database, for one writer."""

    async def write(self, starts: Rows, ends: Rows, facts: Rows, unsealed: set[int]) -> None:
        """All of it in one transaction, durable when it returns. Raises what `is_refusal` can judge."""

    async def close(self) -> None: ...


def is_refusal(error: BaseException) -> bool:
    """Whether the database refused these very values, so that trying again is in vain; otherwise it is away."""
    while error is not None:
        state = getattr(error, "sqlstate", None)
        if isinstance(state, str):
            return state.startswith(("22", "23"))
        if type(error).__module__ == "sqlite3":
            return type(error).__name__ in {"IntegrityError", "DataError", "InterfaceError", "ProgrammingError"}
        if isinstance(error, (ValueError, TypeError, OverflowError)):
            return True
        cause = error.__cause__
        if cause is None:
            return False
        error = cause
    return False
