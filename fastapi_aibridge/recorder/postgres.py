"""The writer's sink for PostgreSQL: one connection; one statement and one round trip for each batch."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import BigInteger, Boolean, Integer, Table
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from .batch import KINDS, Batch
from .columns import END_COLUMNS
from .postgres_reservations import ARGUMENTS, accounted, arguments, outcome_of
from .reservations import Outcome
from .schema import TARGETS, end_assignments, inbox, interceptions, usage_days


class PostgresSink:
    """A sink that replaces a broken connection at the next write, and gives up a write after `timeout` seconds."""

    def __init__(self, engine: AsyncEngine, *, timeout: float = 10.0) -> None:
        self._engine = engine
        self._timeout = timeout
        self._connection: AsyncConnection | None = None
        self._driver: Any = None

    async def write(self, batch: Batch) -> Outcome | None:
        try:
            async with asyncio.timeout(self._timeout):
                if self._connection is None:
                    self._connection = await self._engine.connect()
                    self._driver = (await self._connection.get_raw_connection()).driver_connection
                if not batch.has_money:
                    await self._driver.execute(*_written(batch))
                    return None
                return outcome_of(await self._driver.fetch(*_written(batch)))
        except BaseException:
            if self._driver is None or self._driver.is_closed() or self._driver.is_in_transaction():
                await self._drop()
            raise

    async def close(self) -> None:
        connection, self._connection, self._driver = self._connection, None, None
        if connection is not None:
            await connection.close()

    async def _drop(self) -> None:
        connection, self._connection, self._driver = self._connection, None, None
        if connection is not None:
            await connection.invalidate()
            await connection.close()


def _written(batch: Batch) -> Sequence[Any]:
    """Return the statement for the kinds of rows in the batch, and its parameters."""
    kinds = tuple([kind for kind in KINDS if getattr(batch, kind)])
    columns = [column for kind in kinds for column in zip(*getattr(batch, kind), strict=True)]
    money = arguments(batch) if batch.has_money else ()
    statement = _statement(kinds, with_money=bool(money))
    return (statement, list(batch.stale_days), batch.recorder_id, batch.filed_up_to, *money, *columns)


@cache
def _statement(kinds: tuple[str, ...], *, with_money: bool) -> str:
    parts = [
        f"stale AS (DELETE FROM {usage_days} WHERE day = ANY($1::integer[]))",  # noqa: S608
        f"gone AS (DELETE FROM {inbox} WHERE recorder_id = $2::text AND number <= $3::bigint)",  # noqa: S608
    ]
    place = 4
    if with_money:
        parts.insert(0, f"account AS MATERIALIZED ({accounted(place)})")
        place += len(ARGUMENTS)
    for kind in kinds:
        table, columns, conflict = (interceptions, END_COLUMNS, "") if kind == "ends" else TARGETS[kind]
        rows = _unnest(table, columns, place)
        place += len(columns)
        if kind == "ends":
            source = f"{rows} AS ended({', '.join(END_COLUMNS)})"
            changes = end_assignments("begun")
            written = f"UPDATE {interceptions} AS begun SET {changes} FROM {source} WHERE begun.id = ended.id"  # noqa: S608
        else:
            chosen = f"SELECT * FROM {rows}"  # noqa: S608
            if with_money and kind == "inbox":
                names = ", ".join(columns)
                fits = "NOT EXISTS (SELECT 1 FROM account WHERE account.refused = given.number)"
                chosen += f" AS given({names}) WHERE {fits}"
            written = f"INSERT INTO {table} ({', '.join(columns)}) {chosen} ON CONFLICT {conflict}"
        parts.append(f"of_{kind} AS ({written})")
    return f"WITH {', '.join(parts)} {'TABLE account' if with_money else 'SELECT 1'}"


def _unnest(table: Table, columns: Sequence[str], first: int) -> str:
    arrays = []
    for number, name in enumerate(columns, first):
        kind = table.c[name].type
        array = "text"
        if isinstance(kind, Boolean):
            array = "boolean"
        elif isinstance(kind, BigInteger):
            array = "bigint"
        elif isinstance(kind, Integer):
            array = "integer"
        arrays.append(f"${number}::{array}[]")
    return f"unnest({', '.join(arrays)})"
