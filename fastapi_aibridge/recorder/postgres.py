"""The writer's side of PostgreSQL: one connection, one statement and one round trip for each batch."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, Boolean, Integer, Table
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from .batch import Batch, Rows
from .schema import (
    END_COLUMNS,
    FACT_COLUMNS,
    FILED_COLUMNS,
    INBOX_COLUMNS,
    end_assignments,
    facts,
    inbox,
    interceptions,
    usage_days,
)
from .sqlite import ON_FILED_BEFORE


class PostgresSink:
    """A connection that broke is replaced at the next write. A write that hangs is given up after `timeout` seconds."""

    def __init__(self, engine: AsyncEngine, *, timeout: float = 10.0) -> None:
        self._engine = engine
        self._timeout = timeout
        self._connection: AsyncConnection | None = None
        self._driver: Any = None

    async def write(self, batch: Batch) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                if self._connection is None:
                    self._connection = await self._engine.connect()
                    self._driver = (await self._connection.get_raw_connection()).driver_connection
                await self._driver.execute(
                    _STATEMENT,
                    *_arrays(batch.inbox, len(INBOX_COLUMNS)),
                    *_arrays(batch.filed, len(FILED_COLUMNS)),
                    *_arrays(batch.facts, len(FACT_COLUMNS)),
                    *_arrays(batch.ends, len(END_COLUMNS)),
                    list(batch.unsealed),
                    batch.recorder_id,
                    batch.filed_up_to,
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
    filed = 1 + len(INBOX_COLUMNS)
    seen = filed + len(FILED_COLUMNS)
    ended = seen + len(FACT_COLUMNS)
    days = ended + len(END_COLUMNS)

    def insert(table: Table, columns: Sequence[str], place: int, conflict: str) -> str:
        rows = _unnest(table, columns, place)
        return f"INSERT INTO {table} ({', '.join(columns)}) SELECT * FROM {rows} ON CONFLICT {conflict}"  # noqa: S608

    return (
        f"WITH come AS ({insert(inbox, INBOX_COLUMNS, 1, 'DO NOTHING')}), "  # noqa: S608
        f"filed AS ({insert(interceptions, FILED_COLUMNS, filed, ON_FILED_BEFORE)}), "
        f"seen AS ({insert(facts, FACT_COLUMNS, seen, 'DO NOTHING')}), "
        f"unsealed AS (DELETE FROM {usage_days} WHERE day = ANY(${days}::integer[])), "
        f"gone AS (DELETE FROM {inbox} WHERE recorder_id = ${days + 1}::text AND number <= ${days + 2}::bigint) "
        f"UPDATE {interceptions} AS begun SET {end_assignments('begun')} "
        f"FROM {_unnest(interceptions, END_COLUMNS, ended)} AS ended({', '.join(END_COLUMNS)}) "
        f"WHERE begun.id = ended.id"
    )


_STATEMENT = _statement()
