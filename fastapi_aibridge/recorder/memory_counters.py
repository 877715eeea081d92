"""Budget counters in memory, for `MemoryRecorder`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime

from ..budget import period_start
from .reservations import Counted, CounterKey, CounterListener, Ledger, OverBudget, Reservation, counted_scope

_MOST = 10_000


class MemoryCounters:
    """Budget counters; implements `Counters`. At `_MOST` counters, those of earlier periods are dropped."""

    def __init__(self, recorded: Callable[[CounterKey], int], tokens: Callable[[str, str], int]) -> None:
        """`recorded` returns the spending recorded since a counter's period began, `tokens` those of a response."""
        self.changed: CounterListener | None = None
        self._recorded = recorded
        self._tokens = tokens
        self._ids: dict[CounterKey, int] = {}
        self._ledger = Ledger({}, {})
        self._warned: dict[int, int] = {}
        self._last = 0

    async def open(self, keys: Sequence[CounterKey]) -> Sequence[int]:
        for key in keys:
            if key not in self._ids:
                self._drop_old()
                self._last += 1
                self._ids[key] = self._last
                self._ledger.counters[self._last] = Counted(self._recorded(key))
        return [self._ids[key] for key in keys]

    def _drop_old(self) -> None:
        if len(self._ids) >= _MOST:
            newest = max(key.start for key in self._ids)
            for key in [key for key in self._ids if key.start < newest] or list(self._ids)[:1]:
                counter = self._ids.pop(key)
                if not any(counter in held for held in self._ledger.held.values()):
                    del self._ledger.counters[counter]
                    self._warned.pop(counter, None)

    async def counted(self, keys: Sequence[CounterKey]) -> Mapping[CounterKey, Counted]:
        return {key: self._ledger.counters[self._ids[key]] for key in keys if key in self._ids}

    async def catch_up(self, budgets: Iterable[tuple[str, str, str]]) -> None:
        counters, held = self._ledger.counters, self._ledger.held.values()
        now = datetime.now(UTC)
        for scope, id_, period in budgets:
            wanted = counted_scope(scope), period, period_start(period, now)
            for key, counter in self._ids.items():
                is_wanted = scope in ("member", "default") or key.id == id_
                if is_wanted and (key.scope, key.period, key.start) == wanted:
                    running = sum(one[counter][0] for one in held if counter in one)
                    spent, reserved = counters[counter]
                    counters[counter] = Counted(max(spent, self._recorded(key) + running), reserved)

    async def tokens_of(self, provider: str, response_id: str) -> int:
        return self._tokens(provider, response_id)

    async def claim_warning(self, counter: int, reached: int) -> bool:
        if self._warned.get(counter, 0) >= reached:
            return False
        self._warned[counter] = reached
        return True

    def reserve(self, asked: Reservation) -> None:
        """Make a reservation. Raises `OverBudget`."""
        full = self._ledger.reserve(asked)
        self._tell([counter for counter, _ in asked.limits])
        if full is not None:
            raise OverBudget(full)

    def settle(self, interception_id: str, cost: int) -> None:
        held = list(self._ledger.held.get(interception_id, ()))
        if held:
            self._ledger.settle(interception_id, cost)
            self._tell(held)

    def _tell(self, counters: Sequence[int]) -> None:
        if self.changed is not None:
            amounts = self._ledger.counters
            self.changed({counter: amounts[counter] for counter in counters if counter in amounts})
