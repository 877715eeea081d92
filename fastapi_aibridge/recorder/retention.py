"""Retention: deletion of old interceptions, a few at a time."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

from sqlalchemy import Column, delete, select

from .cursor import to_microseconds
from .daily import day_of
from .database import Database
from .schema import facts, interceptions, objects, set_aside, usage_daily, usage_days

_BATCH = 200


async def prune(database: Database, started_before: datetime, *, batch: int = _BATCH, pause: float = 0.01) -> int:
    """Delete ended interceptions that started before that moment, with their daily sums, and the objects and set-aside
    rows noted before it. Returns the number of interceptions.

    Each batch is one short transaction, followed by a pause of `pause` seconds for other writers.
    """
    moment = to_microseconds(started_before)
    count = 0
    while True:
        async with database.writing() as connection:
            rows = (
                await connection.execute(
                    select(interceptions.c.seq, interceptions.c.id)
                    .where(interceptions.c.started_at < moment, interceptions.c.status != "running")
                    .order_by(interceptions.c.started_at)
                    .limit(batch)
                    .with_for_update(skip_locked=True)
                )
            ).all()
            if rows:
                await connection.execute(delete(facts).where(facts.c.interception_id.in_([row.id for row in rows])))
                await connection.execute(
                    delete(interceptions).where(interceptions.c.seq.in_([row.seq for row in rows]))
                )
            else:
                for table in (usage_daily, usage_days):
                    await connection.execute(delete(table).where(table.c.day < day_of(moment)))
        count += len(rows)
        if not rows:
            break
        await asyncio.sleep(pause)
    for key, noted_at in ((objects.c.object_id, objects.c.noted_at), (set_aside.c.seq, set_aside.c.set_aside_at)):
        await _delete(database, key, noted_at, moment, batch, pause)
    return count


async def _delete(
    database: Database, key: Column[Any], noted_at: Column[int], before: int, batch: int, pause: float
) -> None:
    """Delete the rows noted before that moment, also in short transactions."""
    table = key.table
    while True:
        async with database.writing() as connection:
            old = select(key).where(noted_at < before).order_by(noted_at).limit(batch)
            gone = await connection.execute(delete(table).where(key.in_(old), noted_at < before))
        if gone.rowcount < batch:
            return
        await asyncio.sleep(pause)
