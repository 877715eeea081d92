"""What an interception may cost, reserved from counters in the same commit as its start.

A counter holds what somebody has spent in one period and what is reserved there for interceptions that run. Amounts
are micro-dollars. A reservation fits where spent + reserved + its estimate stay within the limit of each counter that
it names; otherwise nothing is reserved. A reservation says how much its interception has spent and reserved in all, so
a batch may be written twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

from .records import Interception

MAX_AMOUNT = 10**15
"""Micro-dollars: a thousand million dollars. Larger amounts are cut, so that sums stay within 64 bits."""


class CounterKey(NamedTuple):
    """Whose spending is counted, and in which period."""

    scope: str
    """`initiator`, `group` or `everybody`."""
    id: str
    period: str
    """`day`, `week` or `month`."""
    start: datetime


class Counted(NamedTuple):
    """What a counter holds."""

    spent: int = 0
    reserved: int = 0


class Reservation(NamedTuple):
    """What an interception asks for before an upstream call."""

    interception_id: str
    estimate: int
    """The most that the call can cost."""
    limits: Sequence[tuple[int, int]]
    """Ids of counters, with the limit of each."""
    spent: int = 0
    """What the interception's earlier calls have cost: it takes the place of what was reserved for them."""


@dataclass(slots=True)
class Outcome:
    """What became of the reservations and settlements of a batch."""

    refused: dict[int, int] = field(default_factory=dict)
    """The number of the start: the id of the counter that it does not fit."""
    counters: dict[int, Counted] = field(default_factory=dict)
    """All counters that were touched, as they are now."""

    def add(self, later: Outcome) -> None:
        self.refused.update(later.refused)
        self.counters.update(later.counters)


class OverBudget(Exception):
    """A reservation does not fit a counter."""

    def __init__(self, counter: int) -> None:
        super().__init__(f"counter {counter}")
        self.counter = counter


Held: TypeAlias = dict[int, Counted]
"""Of one interception, by counter."""


_NOTHING = Counted()
_NOTHING_HELD: Mapping[int, Counted] = {}


class Ledger:
    """The arithmetic, on counters and reservations in memory."""

    __slots__ = ("counters", "held")

    def __init__(self, counters: dict[int, Counted], held: dict[str, Held]) -> None:
        self.counters = counters
        self.held = held

    def settle(self, interception_id: str, cost: int) -> None:
        """The end of an interception: all that it cost is spent, nothing is reserved any more."""
        for counter, (spent, reserved) in self.held.pop(interception_id, {}).items():
            if counter in self.counters:  # an administrator may have deleted it: its batch must be written all the same
                self._add(counter, cost - spent, -reserved)

    def reserve(self, asked: Reservation) -> int | None:
        """Reserve, or return the counter that it does not fit."""
        id_, estimate, limits, paid = asked
        held = self.held.get(id_, _NOTHING_HELD)
        counters = self.counters
        after = []
        for counter, limit in limits:
            amounts = counters.get(counter)
            if amounts is None or limit <= 0:
                return counter
            spent, reserved = held.get(counter, _NOTHING)
            now = Counted(amounts[0] - spent + paid, amounts[1] - reserved + estimate)
            if now[0] + now[1] > limit:
                return counter
            after.append((counter, now))
        counters.update(after)
        mine = Counted(paid, estimate)
        self.held[id_] = {counter: mine for counter, _ in limits}
        return None

    def _add(self, counter: int, spent: int, reserved: int) -> None:
        before = self.counters[counter]
        self.counters[counter] = Counted(before[0] + spent, before[1] + reserved)

    def counted(self) -> dict[int, Counted]:
        return dict(self.counters)


class CounterListener(Protocol):
    def __call__(self, counters: Mapping[int, Counted], /) -> None:
        """These counters have changed; called after the commit."""


class Counters(Protocol):
    """Counters outside of commits. All methods raise `RecorderUnavailable`."""

    changed: CounterListener | None

    async def open(self, keys: Sequence[CounterKey]) -> Sequence[int]:
        """Their ids. One that is new begins with what the records say was spent in its period."""

    async def counted(self, keys: Sequence[CounterKey]) -> Mapping[CounterKey, Counted]:
        """What they hold, with all that has ended here; those that were never opened are left out."""

    async def catch_up(self, budgets: Iterable[tuple[str, str, str]]) -> None:
        """Budgets by scope, id and period, which hold again: what the records say was spent meanwhile counts, too."""

    async def tokens_of(self, provider: str, response_id: str) -> int:
        """All that the interception read and wrote in which the provider made this response; 0 where none is known."""

    async def claim_warning(self, counter: int, percent: int) -> bool:
        """Whether nobody has told yet that this counter has reached so much of its limit; true once for each."""


@runtime_checkable
class BudgetRecorder(Protocol):
    """A recorder that keeps counters; budgets need one."""

    @property
    def counters(self) -> Counters: ...

    async def start_within(self, interception: Interception, asked: Reservation) -> None:
        """As `start`, with the reservation in the same commit. Raises `OverBudget`, and what `start` raises."""

    async def reserve(self, asked: Reservation) -> None:
        """For a further call of an interception that runs. Raises `OverBudget` and `RecorderUnavailable`."""
