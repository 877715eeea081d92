"""Admin routes that read and change budgets."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, HTTPException, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from ..budget import ANY, MAX_NAME, MAX_USD, Budget, is_id, period_end, period_start
from ..host import Host
from ..money.budget_state import budget_json
from ..recorder.cursor import decode_place, encode_cursor
from ..recorder.reservations import Counted, CounterKey
from .access import AdminAccess, Need
from .admin_routes import NO_STORE, UNREADABLE, AdminRoutes, json_answer, reading
from .answers import BudgetItem, BudgetItems, Problem
from .queries import BudgetListing

if TYPE_CHECKING:
    from ..money.budget_store import BudgetStore

logger = logging.getLogger(__name__)

Period = Literal["day", "week", "month"]
Scope = Literal["initiator", "member", "group", "default", "everybody"]
_LISTING = "budgets"
_FOR_ALL = ("default", "everybody")
_CHANGES: dict[int | str, dict[str, Any]] = {
    **UNREADABLE,
    409: {"model": Problem, "description": "The budget comes from the settings, or there are too many."},
}


class Which(BaseModel):
    period: Annotated[Period, Field(description="In UTC; weeks begin on Monday.")] = "month"


class BudgetChange(BaseModel):
    """The new values of a budget. `scope`, `id` and `period` are optional, and must agree with the URL."""

    model_config = ConfigDict(extra="forbid")

    usd: Annotated[Decimal, Field(ge=0, le=MAX_USD, decimal_places=6, description="0 blocks.")]
    fallback_model: Annotated[str | None, Field(max_length=MAX_NAME)] = None
    scope: Scope | None = None
    id: str | None = None
    period: Period | None = None


def add_budget_routes(router: APIRouter, host: Host, access: AdminAccess) -> None:
    route = AdminRoutes(router, access).route

    async def shown(budgets: Sequence[tuple[Budget, str]], *, is_stored: bool = False) -> list[Any]:
        now = datetime.now(UTC)
        starts = {period: period_start(period, now) for period in ("day", "week", "month")}
        keys = [
            CounterKey(budget.scope, budget.id, budget.period, starts[budget.period])
            for budget, _ in budgets
            if budget.scope not in ("member", "default")
        ]
        amounts: dict[CounterKey, Counted] = {}
        with _logged() if is_stored else reading():
            amounts = dict(zip(keys, await host.runtime.budgets.counted(keys), strict=True))
        return [
            budget_json(
                budget,
                source,
                amounts.get(CounterKey(*budget.key, starts[budget.period])),
                period_end(budget.period, starts[budget.period]),
            )
            for budget, source in budgets
        ]

    def found(scope: str, id_: str, period: str) -> tuple[Budget, str] | None:
        key = _key(scope, id_, period)
        return next((one for one in host.runtime.budgets.listed() if one[0].key == key), None)

    async def store() -> BudgetStore:
        with reading():
            if (kept := host.runtime.budgets.store) is None:
                raise HTTPException(404, f"there is no database to keep budgets in: {NO_STORE}")
        return kept

    def check_managed(one: tuple[Budget, str] | None) -> None:
        if one is not None and one[1] == "settings":
            raise HTTPException(409, "this budget comes from AIBRIDGE_BUDGETS and can only be changed there")

    @route("GET", "/admin/budgets", Need.READ, BudgetItems, UNREADABLE)
    async def listed(chosen: Annotated[BudgetListing, Query()]) -> Response:
        """List all budgets, including those of the settings, with the amounts spent in the current period."""
        with reading():
            first = decode_place(chosen.cursor, _LISTING) if chosen.cursor else 0
        budgets = host.runtime.budgets.listed()
        page = budgets[first : first + chosen.limit]
        more = first + chosen.limit < len(budgets)
        next_cursor = encode_cursor(first + chosen.limit, _LISTING) if more else None
        return json_answer({"items": await shown(page), "next_cursor": next_cursor})

    @route("GET", "/admin/budgets/{scope}/{budget_id:path}", Need.READ, BudgetItem, UNREADABLE)
    async def one(scope: Scope, budget_id: str, chosen: Annotated[Which, Query()]) -> Response:
        """Return one budget, with the amount spent in the current period."""
        if (budget := found(scope, budget_id, chosen.period)) is None:
            raise HTTPException(404, "there is no such budget")
        return json_answer((await shown([budget]))[0])

    @route("PUT", "/admin/budgets/{scope}/{budget_id:path}", Need.CHANGE, BudgetItem, _CHANGES)
    async def put(
        scope: Scope,
        budget_id: str,
        chosen: Annotated[Which, Query()],
        change: Annotated[BudgetChange, Body()],
        store: BudgetStore = Depends(store),
        actor: str = Depends(access.actor),
    ) -> Response:
        """Create or change a budget. It is in force here at once, on other workers within two seconds."""
        budget = _budget(scope, budget_id, chosen, change)
        check_managed(found(*budget.key))
        from ..money.budget_store import TooManyBudgets

        with reading():
            try:
                await store.put(budget, actor)
            except TooManyBudgets:
                raise HTTPException(409, "there are too many budgets; delete some, or use 'default'") from None
        with _logged():
            await host.runtime.budgets.reload()
        return json_answer((await shown([(budget, "admin")], is_stored=True))[0])

    @route("DELETE", "/admin/budgets/{scope}/{budget_id:path}", Need.CHANGE, None, _CHANGES, status=204)
    async def delete(
        scope: Scope,
        budget_id: str,
        chosen: Annotated[Which, Query()],
        store: BudgetStore = Depends(store),
        actor: str = Depends(access.actor),
    ) -> Response:
        """Delete a budget. The amount spent stays counted, for a later budget."""
        key = _key(scope, budget_id, chosen.period)
        check_managed(found(*key))
        with reading():
            existed = is_id(key[1]) and await store.delete(key, actor)
        with _logged():
            await host.runtime.budgets.reload()
        if not existed:
            raise HTTPException(404, "there is no such budget")
        return Response(status_code=204)


@contextmanager
def _logged() -> Iterator[None]:
    """Only log an error: the change is committed, and is followed later, like those of other workers."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - drivers have errors of their own
        logger.warning("a change of budgets is followed later: %s", type(error).__name__)


def _key(scope: str, id_: str, period: str) -> tuple[str, str, str]:
    return scope, ANY if scope in _FOR_ALL and id_ in ("", ANY, scope) else id_, period


def _budget(scope: str, id_: str, chosen: Which, change: BudgetChange) -> Budget:
    """Build the budget. Raises `HTTPException` (422)."""
    period = chosen.period
    if change.period is not None and "period" not in chosen.model_fields_set:
        period = change.period
    key = _key(scope, id_, period)
    for name, value, given in zip(
        ("scope", "id", "period"), key, (change.scope, change.id, change.period), strict=True
    ):
        if given is not None and given != value and not (name == "id" and _key(scope, given, period) == key):
            raise HTTPException(422, f"{name} is {given[:64]!r} in the body and {value[:64]!r} in the URL")
    try:
        budget = Budget(change.usd, period, key[0], key[1], change.fallback_model)
    except ValueError as error:
        raise HTTPException(422, str(error)) from None
    if not budget.id:
        raise HTTPException(422, f"a budget with the scope {scope!r} needs an id")
    return budget
