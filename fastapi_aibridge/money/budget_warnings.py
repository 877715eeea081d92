"""Warnings that a budget is nearly or fully used up: in the log, in the metrics, and to a function of the app."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from ..budget import dollars, usd
from ..errors import RecorderUnavailable
from ..observability import Metrics
from ..recorder.reservations import Counters
from .open_counters import OpenCounter

log = logging.getLogger(__name__)

LEVELS = (100, 80)
"""Percentages of a budget that cause a warning, the highest first."""
_TIMEOUT = 30.0
"""Seconds after which the app's function is cancelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetWarning:
    """The warning that a budget is spent to 80 or 100 percent; 100 also if it has refused a request."""

    scope: str
    """`initiator`, `group` or `everybody`."""
    id: str
    period: str
    percent: int
    spent_usd: float
    limit_usd: float
    resets_at: datetime


OnBudget: TypeAlias = Callable[[BudgetWarning], Awaitable[object]]


class BudgetWarnings:
    """The sender of warnings: once for each counter and level, even if several processes see it reached."""

    def __init__(self, counters: Counters, metrics: Metrics, on_budget: OnBudget | None) -> None:
        self._counters = counters
        self._metrics = metrics
        self._on_budget = on_budget
        self._telling: set[asyncio.Task[None]] = set()

    def look(self, counter: OpenCounter, *, refused: bool = False) -> None:
        """Warn about this counter in a separate task, if it has reached a level that was not warned about."""
        percent = 100 if refused else level_of(counter)
        # The amount and not the percentage is compared, because a larger budget has levels of its own.
        reached = max(1, counter.limit.amount * percent // 100)
        if not percent or reached <= counter.warned:
            return
        counter.warned = reached
        task = asyncio.create_task(self._tell(counter, percent, reached), name="aibridge-budget-warning")
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def aclose(self) -> None:
        for task in tuple(self._telling):
            task.cancel()
        await asyncio.gather(*self._telling, return_exceptions=True)

    async def _tell(self, counter: OpenCounter, percent: int, reached: int) -> None:
        key, limit, spent = counter.key, counter.limit, counter.counted.spent
        try:
            if not await self._counters.claim_warning(counter.id, reached):
                return
        except RecorderUnavailable:
            counter.warned = 0
            return
        self._metrics.budget_reached(key.scope, percent)
        log.warning(
            "budget of %s %.64r: %s of %s USD of this %s are spent, %s; it resets at %s",
            key.scope, key.id, dollars(spent), dollars(limit.amount), key.period,
            "requests are refused" if percent == 100 else f"more than {percent} %",
            limit.resets_at.isoformat(),
        )  # fmt: skip
        if self._on_budget is None:
            return
        warning = BudgetWarning(
            scope=key.scope,
            id=key.id,
            period=key.period,
            percent=percent,
            spent_usd=usd(spent),
            limit_usd=usd(limit.amount),
            resets_at=limit.resets_at,
        )
        try:
            async with asyncio.timeout(_TIMEOUT):
                await self._on_budget(warning)
        except Exception:
            log.exception("the app's on_budget failed")


def level_of(counter: OpenCounter) -> int:
    """Return the highest level that the counter has reached; 0 for none."""
    spent, amount = counter.counted.spent, counter.limit.amount
    if amount <= 0:
        return 0  # a budget of 0 blocks from the beginning
    return next((level for level in LEVELS if spent * 100 >= amount * level), 0)
