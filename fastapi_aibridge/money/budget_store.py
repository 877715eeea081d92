"""The admin API's budgets in the recorder's database. Each change is audited and announced to all workers."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ..budget import Budget, usd
from ..cluster import audit
from ..cluster.versions import bump
from ..recorder.counters import limited_by
from ..recorder.database import Database, insert
from ..recorder.schema import budget_counters, budgets
from ..settings.budgets import MAX_BUDGETS

VERSION = "budgets"
"""The name of the version that workers watch for changes."""


class TooManyBudgets(Exception):
    pass


class BudgetStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self) -> list[Budget]:
        async with self._database.reading() as connection:
            rows = await connection.execute(select(budgets).limit(MAX_BUDGETS))
            return [_budget(row) for row in rows]

    async def put(self, budget: Budget, actor: str) -> None:
        """Create or replace a budget. Raises `TooManyBudgets`."""
        async with self._database.writing() as connection:
            before = await _found(connection, budget.key)
            if before is None and await _count(connection) >= MAX_BUDGETS:
                raise TooManyBudgets
            values = {"amount": budget.limit, "fallback_model": budget.fallback_model}
            await connection.execute(
                insert(connection, budgets)
                .values(scope=budget.scope, id=budget.id, period=budget.period, **values)
                .on_conflict_do_update(index_elements=["scope", "id", "period"], set_=values)
            )
            await _written(connection, budget.key, actor, "budget.put", before, budget)

    async def delete(self, key: tuple[str, str, str], actor: str) -> bool:
        """Delete a budget. Returns whether it existed."""
        async with self._database.writing() as connection:
            before = await _found(connection, key)
            if before is None:
                return False
            await connection.execute(delete(budgets).where(*_is(key)))
            await _written(connection, key, actor, "budget.delete", before, None)
        return True


async def _written(
    connection: AsyncConnection,
    key: tuple[str, str, str],
    actor: str,
    action: str,
    before: Budget | None,
    after: Budget | None,
) -> None:
    scope, id_, period = key
    name = f"budget/{scope}/{id_}/{period}"
    await audit.record(
        connection,
        actor=actor,
        action=action,
        object=name,
        before=_audited(before),
        after=_audited(after),
    )
    # Warn about the new amount as well, even if the old one was larger and used up.
    await connection.execute(update(budget_counters).where(*limited_by(scope, id_, period)).values(told=0))
    await bump(connection, VERSION)


async def _count(connection: AsyncConnection) -> int:
    return await connection.scalar(select(func.count()).select_from(budgets)) or 0


def _audited(budget: Budget | None) -> dict[str, Any] | None:
    if budget is None:
        return None
    return {"usd": usd(budget.limit), "fallback_model": budget.fallback_model}


async def _found(connection: AsyncConnection, key: tuple[str, str, str]) -> Budget | None:
    row = (await connection.execute(select(budgets).where(*_is(key)))).first()
    return None if row is None else _budget(row)


def _is(key: tuple[str, str, str]) -> tuple[Any, ...]:
    return tuple(budgets.c[name] == value for name, value in zip(("scope", "id", "period"), key, strict=True))


def _budget(row: Any) -> Budget:
    return Budget(usd=usd(row.amount), period=row.period, scope=row.scope, id=row.id, fallback_model=row.fallback_model)
