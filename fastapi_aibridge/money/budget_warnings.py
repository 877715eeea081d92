"""Telling once that a budget is nearly or wholly used up: in the log, in the metrics, to a function of the app."""

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
"""Percent of a budget that are told of, the highest first."""
_TIMEOUT = 30.0
"""Seconds that the app's function may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetWarning:
    """A budget is spent to `percent` percent: 80, or 100, also where a request was refused."""

    scope: str
    """`initiator`, `group` or `everybody`: whose spending it is."""
    id: str
    period: str
    percent: int
    spent_usd: float
    limit_usd: float
    resets_at: datetime


OnBudget: TypeAlias = Callable[[BudgetWarning], Awaitable[object]]


class BudgetWarnings:
    """Tells of each counter and level once, also where several processes see it reached."""

    def __init__(self, counters: Counters, metrics: Metrics, on_budget: OnBudget | None) -> None:
        self._counters = counters
        self._metrics = metrics
        self._on_budget = on_budget
        self._telling: set[asyncio.Task[None]] = set()

    def look(self, counter: OpenCounter, *, refused: bool = False) -> None:
        """Tell what is to be told of this counter, in a task of its own."""
        percent = 100 if refused else level_of(counter)
        amount = counter.limit.amount
        before = counter.told[1] if counter.told[0] == amount else 0
        if percent <= before:
            return
        counter.told = amount, percent
        task = asyncio.create_task(self._tell(counter, percent), name="aibridge-budget-warning")
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def aclose(self) -> None:
        for task in tuple(self._telling):
            task.cancel()
        await asyncio.gather(*self._telling, return_exceptions=True)

    async def _tell(self, counter: OpenCounter, percent: int) -> None:
        key, limit, spent = counter.key, counter.limit, counter.counted.spent
        try:
            if not await self._counters.claim_warning(counter.id, percent):
                return
        except RecorderUnavailable:
            counter.told = (0, 0)
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
    """The highest level that is reached; 0 for none."""
    spent, amount = counter.counted.spent, counter.limit.amount
    if amount <= 0:
        return 0  # it blocks from the beginning
    return next((level for level in LEVELS if spent * 100 >= amount * level), 0)
