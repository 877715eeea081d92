"""Daily sums: each past day is added up once, so that aggregates over months read few rows.

A day is first marked, then added up and sealed in the next upkeep round. By then every write that had begun before the
mark has ended, and every later write to that day deletes the mark. So the sums of a sealed day are always right.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from .columns import SUM_COLUMNS
from .cursor import to_microseconds
from .database import Database
from .schema import interceptions, usage_daily, usage_days

DAY = 86_400_000_000
"""Microseconds of a day."""

_GRACE = timedelta(hours=1)
_BATCH = 500
_KEYS = ("initiator_id", "provider", "model", "client")


def day_of(moment: int) -> int:
    return moment // DAY


def first_open_day(now: datetime) -> int:
    """Return the first day that may not be sealed. A write to an earlier day must delete its mark or seal."""
    return day_of(to_microseconds(now - _GRACE))


async def seal(database: Database, now: datetime) -> int:
    """Add up and seal the days marked in the last round, then mark newly ended ones. Returns how many were sealed."""
    async with database.reading() as connection:
        marked = list(await connection.scalars(select(usage_days.c.day).where(~usage_days.c.sealed)))
    sealed = 0
    for day in marked:
        sealed += await _add_up(database, day)
    await _mark(database, first_open_day(now))
    return sealed


async def _mark(database: Database, before: int) -> None:
    async with database.reading() as connection:
        known = set(await connection.scalars(select(usage_days.c.day)))
        days = [day for day in await _days_with_calls(connection, before) if day not in known]
    for day in days:
        try:
            async with database.writing() as connection:
                await connection.execute(insert(usage_days).values(day=day, sealed=False))
        except IntegrityError:
            continue  # another process has just done so


async def _days_with_calls(connection: AsyncConnection, before: int) -> list[int]:
    """Return the days with interceptions, by one index look-up for each day."""
    days: list[int] = []
    moment = None
    while True:
        started = interceptions.c.started_at
        wanted = [started < before * DAY] + ([] if moment is None else [started >= moment])
        first = (await connection.execute(select(func.min(started)).where(*wanted))).scalar()
        if first is None:
            return days
        days.append(day_of(first))
        moment = (days[-1] + 1) * DAY


async def _add_up(database: Database, day: int) -> bool:
    within = (interceptions.c.started_at >= day * DAY, interceptions.c.started_at < (day + 1) * DAY)
    keys = [interceptions.c[name] for name in _KEYS]
    async with database.reading() as connection:
        running = select(interceptions.c.seq).where(interceptions.c.status == "running", *within).limit(1)
        if (await connection.execute(running)).first() is not None:
            return False
        sums = [func.sum(interceptions.c[name]).label(name) for name in SUM_COLUMNS]
        groups = (
            await connection.execute(select(*keys, func.count().label("calls"), *sums).where(*within).group_by(*keys))
        ).all()
    async with database.writing() as connection:
        mine = await connection.execute(
            update(usage_days).where(usage_days.c.day == day, ~usage_days.c.sealed).values(sealed=True)
        )
        if not mine.rowcount:
            return False
        await connection.execute(delete(usage_daily).where(usage_daily.c.day == day))
        # PostgreSQL returns sums as decimals.
        rows = [
            {"day": day, **dict(zip(_KEYS, row, strict=False)), "calls": row.calls}
            | {name: None if (value := getattr(row, name)) is None else int(value) for name in SUM_COLUMNS}
            for row in groups
        ]
        for place in range(0, len(rows), _BATCH):
            await connection.execute(insert(usage_daily), rows[place : place + _BATCH])
    return True
