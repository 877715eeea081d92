"""The current state of a budget: its limit, and the amounts spent and reserved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..budget import Budget, usd
from ..recorder.jsonform import members, timestamp
from ..recorder.reservations import Counted
from .budget_book import Limit


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetState:
    """The state of a budget that applies to a caller. Amounts are US dollars."""

    scope: str
    """`initiator` for the caller's own spending, `group` for the total spending of a group."""
    id: str
    period: str
    """`day`, `week` or `month`."""
    limit_usd: float
    spent_usd: float
    reserved_usd: float
    """The amount reserved for running requests."""
    left_usd: float
    """Never negative."""
    resets_at: datetime
    fallback_model: str | None = None

    @classmethod
    def of(cls, limit: Limit, counted: Counted) -> BudgetState:
        return cls(
            scope=limit.counter.scope,
            id=limit.counter.id,
            period=limit.counter.period,
            limit_usd=usd(limit.amount),
            spent_usd=usd(counted.spent),
            reserved_usd=usd(counted.reserved),
            left_usd=usd(max(0, limit.amount - counted.spent - counted.reserved)),
            resets_at=limit.resets_at,
            fallback_model=limit.budget.fallback_model,
        )

    def json(self) -> dict[str, Any]:
        return {"usd" if name == "limit_usd" else name: value for name, value in members(self).items()}


def budget_json(budget: Budget, source: str, counted: Counted | None, resets_at: datetime) -> Mapping[str, Any]:
    """Return a budget in the form of the admin routes. `counted` is None for one that each initiator has separately."""
    return {
        "scope": budget.scope,
        "id": budget.id,
        "usd": usd(budget.limit),
        "period": budget.period,
        "fallback_model": budget.fallback_model,
        "source": source,
        "spent_usd": None if counted is None else usd(counted.spent),
        "reserved_usd": None if counted is None else usd(counted.reserved),
        "resets_at": timestamp(resets_at),
    }
