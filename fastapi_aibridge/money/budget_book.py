"""The look-up of the budgets that apply to a principal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ..budget import ANY, Budget, period_end, period_start
from ..principal import Principal
from ..recorder.reservations import CounterKey

_MOST = 10_000
"""Principals whose limits are cached."""
EVERYBODY = "everybody"
"""The scope of the total spending of all initiators."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A budget that applies to a principal, and the counter that it limits."""

    counter: CounterKey
    budget: Budget
    amount: int
    """Micro-dollars."""

    @property
    def resets_at(self) -> datetime:
        return period_end(self.counter.period, self.counter.start)


class BudgetBook:
    """All budgets of the settings and the admin API, indexed by subject.

    Fields that change: `_today`, a cache with a bound, and `_begun` and `_over`, the limits of the day it is valid for.
    """

    def __init__(self, budgets: Iterable[Budget] = ()) -> None:
        self._by_subject: dict[tuple[str, str], list[Budget]] = {}
        for budget in budgets:
            self._by_subject.setdefault((budget.scope, budget.id), []).append(budget)
        # Periods begin and end at midnight in UTC, so a principal's limits stay the same until then.
        self._begun = self._over = datetime.min.replace(tzinfo=UTC)
        self._today: dict[tuple[str, Sequence[str]], list[Limit]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._by_subject.values()))

    def limits(self, principal: Principal, moment: datetime) -> list[Limit]:
        """Return the limits of this principal at this moment: the lowest one for each counter."""
        if principal.budgets:
            return self._limits(principal, moment)
        if not self._begun <= moment < self._over or len(self._today) >= _MOST:
            self._begun = period_start("day", moment)
            self._over, self._today = period_end("day", self._begun), {}
        key = principal.initiator_id, principal.groups
        known = self._today.get(key)
        if known is None:
            known = self._today[key] = self._limits(principal, moment)
        return known

    def _limits(self, principal: Principal, moment: datetime) -> list[Limit]:
        of = self._by_subject.get
        initiator = principal.initiator_id
        groups: Sequence[str] = principal.groups
        own = list(of(("initiator", initiator), ()))
        shared: list[tuple[str, str, Budget]] = []
        for group in groups:
            own += of(("member", group), ())
            shared += [("group", group, budget) for budget in of(("group", group), ())]
        for budget in principal.own_budgets:
            if budget.scope == "group":
                shared.append(("group", budget.id, budget))
            else:
                own.append(budget)
        periods = {budget.period for budget in own}
        own += [budget for budget in of(("default", ANY), ()) if budget.period not in periods]
        shared += [(EVERYBODY, ANY, budget) for budget in of((EVERYBODY, ANY), ())]
        tightest: dict[tuple[str, str, str], Budget] = {}
        for scope, id_, budget in [*(("initiator", initiator, budget) for budget in own), *shared]:
            key = scope, id_, budget.period
            if key not in tightest or budget.limit < tightest[key].limit:
                tightest[key] = budget
        return [
            Limit(CounterKey(*key, period_start(key[2], moment)), budget, budget.limit)
            for key, budget in tightest.items()
        ]
