"""Budgets in the settings."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, InstanceOf

from ..budget import EXAMPLE, Budget

MAX_BUDGETS = 10_000


def _listed(budgets: object) -> object:
    if not isinstance(budgets, list | tuple):
        raise ValueError(f"budgets are a JSON list of objects, such as [{EXAMPLE}]")  # noqa: TRY004
    return budgets


def _distinct(budgets: tuple[Budget, ...]) -> tuple[Budget, ...]:
    seen = set()
    for budget in budgets:
        if budget.scope not in ("default", "everybody") and not budget.id:
            raise ValueError(f"a budget with the scope {budget.scope!r} needs the 'id' of whom it concerns")
        if budget.key in seen:
            raise ValueError(f"there are two budgets of {budget.scope} {budget.id!r} for a {budget.period}; give one")
        seen.add(budget.key)
    return budgets


Budgets: TypeAlias = Annotated[
    tuple[Annotated[InstanceOf[Budget], BeforeValidator(Budget.of)], ...],
    Field(max_length=MAX_BUDGETS),
    BeforeValidator(_listed),
    AfterValidator(_distinct),
]
"""A list of objects such as `{"scope": "initiator", "id": "alice", "usd": 20, "period": "month"}`."""
