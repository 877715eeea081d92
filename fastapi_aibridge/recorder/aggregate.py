"""Usage aggregates: sealed days are read from the daily sums, all other time from the interceptions themselves."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from sqlalchemy import JSON, ColumnElement, FromClause, Table, and_, cast, func, or_, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from .columns import SUM_COLUMNS
from .cursor import EPOCH, to_microseconds
from .daily import DAY
from .reader import conditions
from .schema import interceptions, usage_daily, usage_days
from .usage import Key, Sums, UsageBy, UsageQuery, UsageRow, add_sums, no_sums, usage_rows

_MAX = 2**63 - 1
_DAILY = frozenset({UsageBy.DAY, UsageBy.INITIATOR, UsageBy.PROVIDER, UsageBy.MODEL, UsageBy.CLIENT})
"""The keys of the daily sums. A query that groups by anything else reads the interceptions themselves."""


async def read_usage(connection: AsyncConnection, query: UsageQuery) -> list[UsageRow]:
    sums: dict[Key, Sums] = {}
    by_day = query.session_id is None and set(query.by) <= _DAILY
    sealed = await _sealed_days(connection, query) if by_day else []
    untimed = replace(query, started_after=None, started_before=None)
    if sealed:
        wanted = conditions(untimed, columns=usage_daily.c)
        await _add(connection, query, usage_daily, [*wanted, _within_days(sealed)], sums)
    wanted = conditions(untimed)
    started = interceptions.c.started_at
    for first, end in _gaps(query, sealed):
        await _add(connection, query, interceptions, [*wanted, started >= first, started < end], sums)
    return usage_rows(query, sums)


async def _sealed_days(connection: AsyncConnection, query: UsageQuery) -> list[int]:
    wanted: list[ColumnElement[bool]] = [usage_days.c.sealed]
    if query.started_after is not None:
        wanted.append(usage_days.c.day >= -(-to_microseconds(query.started_after) // DAY))
    if query.started_before is not None:
        wanted.append(usage_days.c.day < to_microseconds(query.started_before) // DAY)
    return list(await connection.scalars(select(usage_days.c.day).where(*wanted).order_by(usage_days.c.day)))


def _stretches(days: list[int]) -> list[tuple[int, int]]:
    """Merge sorted days into ranges without gaps: pairs of the first day and the day after the last."""
    stretches: list[tuple[int, int]] = []
    for day in days:
        if stretches and stretches[-1][1] == day:
            stretches[-1] = (stretches[-1][0], day + 1)
        else:
            stretches.append((day, day + 1))
    return stretches


def _within_days(days: list[int]) -> ColumnElement[bool]:
    return or_(*(and_(usage_daily.c.day >= first, usage_daily.c.day < end) for first, end in _stretches(days)))


def _gaps(query: UsageQuery, sealed: list[int]) -> list[tuple[int, int]]:
    """Return the ranges of the query's time, in microseconds, that no sealed day covers."""
    place = -_MAX if query.started_after is None else to_microseconds(query.started_after)
    end = _MAX if query.started_before is None else to_microseconds(query.started_before)
    gaps = []
    for first, after in _stretches(sealed):
        gaps.append((place, first * DAY))
        place = after * DAY
    gaps.append((place, end))
    return [(first, after) for first, after in gaps if first < after]


async def _add(
    connection: AsyncConnection,
    query: UsageQuery,
    table: Table,
    wanted: list[ColumnElement[bool]],
    sums: dict[Key, Sums],
) -> None:
    raw = table is interceptions
    keys: list[ColumnElement[Any]] = []
    source: FromClause = table
    if UsageBy.GROUP in query.by:
        source, group = _with_groups(table, is_sqlite=connection.dialect.name == "sqlite")
    for by in query.by:
        if by is UsageBy.DAY:
            keys.append((table.c.started_at // DAY if raw else table.c.day).label("day"))
        elif by is UsageBy.GROUP:
            keys.append(group)
        else:
            keys.append(table.c[by.value])
    calls = func.count() if raw else func.sum(table.c.calls)
    statement = (
        select(*keys, calls, *(func.sum(table.c[name]) for name in SUM_COLUMNS)).select_from(source).where(*wanted)
    )
    if keys:
        statement = statement.group_by(*keys)
    for row in await connection.execute(statement):
        numbers = [None if value is None else int(value) for value in row[len(keys) :]]
        if not keys and not numbers[0]:
            continue
        key = tuple(
            (EPOCH + timedelta(days=value)).date() if by is UsageBy.DAY else value
            for by, value in zip(query.by, row, strict=False)
        )
        add_sums(sums.setdefault(key, no_sums()), numbers)


def _with_groups(table: Table, *, is_sqlite: bool) -> tuple[FromClause, ColumnElement[Any]]:
    """Join the table with each interception's groups, a JSON list: one row per group. Return the group's column too."""
    if is_sqlite:
        named = func.json_each(table.c.groups).table_valued("value", name="named")
    else:
        named = func.json_array_elements_text(cast(table.c.groups, JSON)).table_valued("value", name="named")
    return table.join(named, true(), isouter=True), named.c.value
