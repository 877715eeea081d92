"""Reservations of an interception's possible cost on budget counters, in the same commit as its start.

A counter holds the spending of a subject in one period, and the amount reserved there for running interceptions.
Amounts are micro-dollars. A reservation fits if spent + reserved + its estimate stay within the limit of each counter
that it names; otherwise nothing is reserved. It states the interception's totals, not differences, so a batch may be
written twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

from .records import Interception

MAX_AMOUNT = 10**15
"""Micro-dollars: a thousand million dollars. Larger amounts are capped, so that sums stay within 64 bits."""


class CounterKey(NamedTuple):
    """The subject whose spending a counter counts, and the period."""

    scope: str
    """`initiator`, `group` or `everybody`."""
    id: str
    period: str
    """`day`, `week` or `month`."""
    start: datetime


def counted_scope(scope: str) -> str:
    """Return the scope of the counters that a budget of this scope limits."""
    return scope if scope in ("group", "everybody") else "initiator"


class Counted(NamedTuple):
    """The amounts of a counter, in micro-dollars."""

    spent: int = 0
    reserved: int = 0


class Reservation(NamedTuple):
    """The amount that an interception reserves before an upstream call."""

    interception_id: str
    estimate: int
    """The most that the call can cost, in micro-dollars."""
    limits: Sequence[tuple[int, int]]
    """Ids of counters and their limits in micro-dollars."""
    spent: int = 0
    """The cost of the interception's earlier calls; it replaces the amounts reserved for them."""


@dataclass(slots=True)
class Outcome:
    """The result of a batch's reservations and settlements."""

    refused: dict[int, int] = field(default_factory=dict)
    """The id of the counter that a reservation does not fit, by the number of its start."""
    counters: dict[int, Counted] = field(default_factory=dict)
    """The new amounts of all counters involved, by id."""

    def add(self, later: Outcome) -> None:
        self.refused.update(later.refused)
        self.counters.update(later.counters)


class OverBudget(Exception):
    """A reservation exceeds the limit of a counter, or the counter does not exist."""

    def __init__(self, counter: int) -> None:
        super().__init__(f"counter {counter}")
        self.counter = counter


Held: TypeAlias = dict[int, Counted]
"""The amounts that one interception has spent and reserved, by counter."""


_NOTHING = Counted()
_NOTHING_HELD: Mapping[int, Counted] = {}


class Ledger:
    """The arithmetic of reservations and settlements, on counters in memory."""

    __slots__ = ("counters", "held")

    def __init__(self, counters: dict[int, Counted], held: dict[str, Held]) -> None:
        self.counters = counters
        self.held = held

    def settle(self, interception_id: str, cost: int) -> None:
        """Settle an ended interception: its whole cost is spent, nothing stays reserved."""
        for counter, (spent, reserved) in self.held.pop(interception_id, {}).items():
            if counter in self.counters:  # it may have been deleted; the batch must be written all the same
                self._add(counter, cost - spent, -reserved)

    def reserve(self, asked: Reservation) -> int | None:
        """Reserve and return None, or change nothing and return the id of a counter that it does not fit."""
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
        """Take note of changed counters; called after the commit."""


class Counters(Protocol):
    """The operations on counters apart from reservations. All methods raise `RecorderUnavailable`."""

    changed: CounterListener | None

    async def open(self, keys: Sequence[CounterKey]) -> Sequence[int]:
        """Return the counters' ids, opening new ones. A new one starts with the recorded spending of its period."""

    async def counted(self, keys: Sequence[CounterKey]) -> Mapping[CounterKey, Counted]:
        """Return the counters' amounts, with everything that ended in this process. Omits counters never opened."""

    async def catch_up(self, budgets: Iterable[tuple[str, str, str]]) -> None:
        """Raise counters of the present period to the recorded spending, for budgets (scope, id, period) that newly
        apply.
        """

    async def tokens_of(self, provider: str, response_id: str) -> int:
        """Return all tokens of the interception in which the provider made this response; 0 if unknown."""

    async def claim_warning(self, counter: int, reached: int) -> bool:
        """Claim the warning that a counter reached so many micro-dollars. Returns True to the first caller only, and to
        nobody once a larger amount was claimed.
        """


@runtime_checkable
class BudgetRecorder(Protocol):
    """A recorder that keeps counters, which budgets require."""

    @property
    def counters(self) -> Counters: ...

    async def start_within(self, interception: Interception, asked: Reservation) -> None:
        """Like `start`, with the reservation in the same commit. Raises `OverBudget`, and whatever `start` raises."""

    async def reserve(self, asked: Reservation) -> None:
        """Reserve for a further call of a running interception. Raises `OverBudget` and `RecorderUnavailable`."""
