"""The spending of a caller and the state of the caller's budgets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ..budget import period_start, usd
from ..principal import Principal
from ..recorder.usage import UsageQuery, UsageStore
from .budget_state import BudgetState
from .budgets import Budgets


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerUsage:
    """The caller's spending of this month and budgets, in US dollars."""

    spent_usd: float | None
    """The cost of the caller's requests in this month (in UTC), as far as they have a price; None if the recorder does
    not aggregate usage.
    """
    budgets: Sequence[BudgetState]
    """The budgets of the caller and of the caller's groups."""

    @property
    def left_usd(self) -> float | None:
        """The smallest amount left of any budget; None without budgets."""
        return min((budget.left_usd for budget in self.budgets), default=None)


async def caller_usage(recorder: object, budgets: Budgets, principal: Principal) -> CallerUsage:
    """Return the caller's usage. Raises `RecorderUnavailable`, and whatever the recorder raises."""
    spent = None
    if isinstance(recorder, UsageStore):
        month = period_start("month", datetime.now(UTC))
        rows = await recorder.usage(UsageQuery(initiator_id=principal.initiator_id, started_after=month))
        spent = usd(rows[0].cost) or 0.0 if rows else 0.0
    return CallerUsage(spent_usd=spent, budgets=await budgets.states(principal))
