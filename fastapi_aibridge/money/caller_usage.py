"""What a caller has spent and may still spend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ..budget import period_start
from ..principal import Principal
from ..recorder.jsonform import usd
from ..recorder.usage import UsageQuery, UsageStore
from .budget_state import BudgetState
from .budgets import Budgets


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerUsage:
    """Amounts are US dollars."""

    spent_usd: float | None
    """What the caller's requests of this month (in UTC) have cost, as far as they have a price; None without records
    that can be added up.
    """
    budgets: Sequence[BudgetState]
    """The budgets of the caller and of the caller's groups."""

    @property
    def left_usd(self) -> float | None:
        """What the tightest budget leaves; None without budgets."""
        return min((budget.left_usd for budget in self.budgets), default=None)


async def caller_usage(recorder: object, budgets: Budgets, principal: Principal) -> CallerUsage:
    """Raises `RecorderUnavailable`, and what the recorder raises."""
    spent = None
    if isinstance(recorder, UsageStore):
        month = period_start("month", datetime.now(UTC))
        rows = await recorder.usage(UsageQuery(initiator_id=principal.initiator_id, started_after=month))
        spent = usd(rows[0].cost) or 0.0 if rows else 0.0
    return CallerUsage(spent_usd=spent, budgets=await budgets.states(principal))
