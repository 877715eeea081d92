"""Reading interceptions back from the database: a page of them, one of them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from .cursor import decode_cursor, encode_cursor, to_microseconds
from .recorder import InterceptionFilter, InterceptionQuery, Page
from .records import InterceptionRecord
from .rows import record, storable
from .schema import facts, interceptions

LARGEST_PAGE = 1000

_table = interceptions.c


def conditions(query: InterceptionFilter, *, columns: Any = _table) -> list[ColumnElement[bool]]:
    """The query's filters; not its cursor."""
    wanted: list[ColumnElement[bool]] = [
        columns[name] == storable(value)
        for name in ("initiator_id", "provider", "model", "session_id")
        if (value := getattr(query, name)) is not None
    ]
    if query.started_after is not None:
        wanted.append(_table.started_at >= to_microseconds(query.started_after))
    if query.started_before is not None:
        wanted.append(_table.started_at < to_microseconds(query.started_before))
    return wanted


async def read_page(connection: AsyncConnection, query: InterceptionQuery) -> Page:
    wanted = conditions(query)
    if query.cursor is not None:
        moment, interception_id = decode_cursor(query.cursor)
        # Said twice, so that the index on the moment alone finds the place.
        wanted.append(
            and_(_table.started_at <= moment, or_(_table.started_at < moment, _table.id < storable(interception_id)))
        )
    limit = min(max(query.limit, 1), LARGEST_PAGE)
    statement = (
        select(interceptions).where(*wanted).order_by(_table.started_at.desc(), _table.id.desc()).limit(limit + 1)
    )
    rows = (await connection.execute(statement)).all()
    page = rows[:limit]
    bodies: dict[str, list[str]] = {}
    if page:
        found = await connection.execute(
            select(facts.c.interception_id, facts.c.body)
            .where(facts.c.interception_id.in_([row.id for row in page]))
            .order_by(facts.c.interception_id, facts.c.part)
        )
        for interception_id, body in found:
            bodies.setdefault(interception_id, []).append(body)
    next_cursor = encode_cursor(page[-1].started_at, page[-1].id) if len(rows) > limit else None
    return Page([record(row, bodies.get(row.id, ())) for row in page], next_cursor)


async def read_one(connection: AsyncConnection, interception_id: str) -> InterceptionRecord | None:
    interception_id = storable(interception_id)
    row = (await connection.execute(select(interceptions).where(_table.id == interception_id))).first()
    if row is None:
        return None
    bodies = await connection.scalars(
        select(facts.c.body).where(facts.c.interception_id == interception_id).order_by(facts.c.part)
    )
    return record(row, bodies.all())
