"""The writer's side of PostgreSQL: one connection, one statement and one round trip for each batch."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, Boolean, Integer, Table
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from .batch import Rows
from .schema import END_COLUMNS, FACT_COLUMNS, START_COLUMNS, facts, interceptions, usage_days


class PostgresSink:
    """A connection that broke is replaced at the next write. A write that hangs is given up after `timeout` seconds."""

    def __init__(self, engine: AsyncEngine, *, timeout: float = 10.0) -> None:
        self._engine = engine
        self._timeout = timeout
        self._connection: AsyncConnection | None = None
        self._driver: Any = None

    async def write(self, starts: Rows, ends: Rows, facts: Rows, unsealed: set[int]) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                if self._connection is None:
                    self._connection = await self._engine.connect()
                    self._driver = (await self._connection.get_raw_connection()).driver_connection
                await self._driver.execute(
                    _STATEMENT,
                    *_arrays(starts, len(START_COLUMNS)),
                    *_arrays(facts, len(FACT_COLUMNS)),
                    *_arrays(ends, len(END_COLUMNS)),
                    list(unsealed),
                )
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


def _arrays(rows: Rows, columns: int) -> Sequence[Sequence[Any]]:
    return list(zip(*rows, strict=True)) if rows else [()] * columns


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


def _statement() -> str:
    fact_place = 1 + len(START_COLUMNS)
    end_place = fact_place + len(FACT_COLUMNS)
    day_place = end_place + len(END_COLUMNS)
    assignments = ", ".join(f"{name} = ended.{name}" for name in END_COLUMNS[1:])
    return (
        f"WITH started AS (INSERT INTO {interceptions} ({', '.join(START_COLUMNS)}) "  # noqa: S608
        f"SELECT * FROM {_unnest(interceptions, START_COLUMNS, 1)} ON CONFLICT DO NOTHING), "
        f"seen AS (INSERT INTO {facts} ({', '.join(FACT_COLUMNS)}) "
        f"SELECT * FROM {_unnest(facts, FACT_COLUMNS, fact_place)} ON CONFLICT DO NOTHING), "
        f"unsealed AS (DELETE FROM {usage_days} WHERE day = ANY(${day_place}::integer[])) "
        f"UPDATE {interceptions} AS begun SET {assignments} "
        f"FROM {_unnest(interceptions, END_COLUMNS, end_place)} AS ended({', '.join(END_COLUMNS)}) "
        f"WHERE begun.id = ended.id"
    )


_STATEMENT = _statement()
