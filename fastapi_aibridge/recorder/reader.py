"""Queries that read interceptions back: a page, a single one, the owner of an object."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, ColumnElement, LargeBinary, and_, cast, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from .bounds import key_of
from .columns import TOKEN_COLUMNS
from .cursor import decode_cursor, encode_cursor, to_microseconds
from .readback import record
from .recorder import HEAVIEST_PAGE, InterceptionFilter, InterceptionQuery, Page
from .records import InterceptionRecord
from .schema import facts, interceptions, objects

LARGEST_PAGE = 1000

_table = interceptions.c


def conditions(query: InterceptionFilter, *, columns: Any = _table) -> list[ColumnElement[bool]]:
    """Return the query's filters as SQL conditions, without its cursor."""
    wanted: list[ColumnElement[bool]] = [
        columns[name] == key_of(name, value)
        for name in ("initiator_id", "provider", "model", "session_id")
        if (value := getattr(query, name)) is not None
    ]
    if query.started_after is not None:
        wanted.append(_table.started_at >= to_microseconds(query.started_after))
    if query.started_before is not None:
        wanted.append(_table.started_at < to_microseconds(query.started_before))
    return wanted


async def read_page(connection: AsyncConnection, query: InterceptionQuery, *, heaviest: int = HEAVIEST_PAGE) -> Page:
    """Read one page: up to the query's limit, or fewer if their texts exceed `heaviest` bytes together."""
    wanted = conditions(query)
    if query.cursor is not None:
        moment, interception_id = decode_cursor(query.cursor)
        # `started_at` is compared twice, so that the index on `started_at` alone finds the position.
        before = or_(_table.started_at < moment, _table.id < key_of("id", interception_id))
        wanted.append(and_(_table.started_at <= moment, before))
    limit = min(max(query.limit, 1), LARGEST_PAGE)
    newest_first = (_table.started_at.desc(), _table.id.desc())
    weighed = (
        select(_table.seq, _table.id, _table.started_at, _weight(connection))
        .where(*wanted)
        .order_by(*newest_first)
        .limit(limit + 1)
    )
    found = (await connection.execute(weighed)).all()
    page, weight = list(found[:1]), found[0].weight if found else 0
    for row in found[1:limit]:
        weight += row.weight
        if weight > heaviest:
            break
        page.append(row)
    if not page:
        return Page([], None)
    chosen = select(interceptions).where(_table.seq.in_([row.seq for row in page])).order_by(*newest_first)
    rows = (await connection.execute(chosen)).mappings().all()
    bodies: dict[str, list[str]] = {}
    stored = (
        select(facts.c.interception_id, facts.c.body)
        .where(facts.c.interception_id.in_([row.id for row in page]))
        .order_by(facts.c.interception_id, facts.c.part)
    )
    for interception_id, body in await connection.execute(stored):
        bodies.setdefault(interception_id, []).append(body)
    next_cursor = encode_cursor(page[-1].started_at, page[-1].id) if len(found) > len(page) else None
    return Page([record(dict(row), bodies.get(row["id"], ())) for row in rows], next_cursor)


def _weight(connection: AsyncConnection) -> ColumnElement[int]:
    """Return an SQL expression for the bytes of an interception's long texts: facts, metadata and error."""

    def size(column: ColumnElement[Any]) -> ColumnElement[int]:
        if connection.dialect.name == "postgresql":
            return func.coalesce(func.octet_length(column), 0)
        return func.coalesce(func.length(cast(column, LargeBinary)), 0)

    of_facts = (
        select(func.coalesce(func.sum(size(facts.c.body)), 0))
        .where(facts.c.interception_id == _table.id)
        .scalar_subquery()
    )
    return cast(of_facts + size(_table.metadata) + size(_table.error), BigInteger).label("weight")


async def read_one(connection: AsyncConnection, interception_id: str) -> InterceptionRecord | None:
    interception_id = key_of("id", interception_id)
    row = (await connection.execute(select(interceptions).where(_table.id == interception_id))).mappings().first()
    if row is None:
        return None
    bodies = await connection.scalars(
        select(facts.c.body).where(facts.c.interception_id == interception_id).order_by(facts.c.part)
    )
    return record(dict(row), bodies.all())


async def read_interrupted(
    connection: AsyncConnection, provider: str, object_id: str, initiator_id: str
) -> InterceptionRecord | None:
    """Return the initiator's interception that made this response, if it was interrupted and no tokens were counted.
    The names must be in their stored form.
    """
    wanted = (
        select(_table.id)
        .join(objects, objects.c.interception_id == _table.id)
        .where(
            objects.c.provider == provider,
            objects.c.object_id == object_id,
            objects.c.kind == "response",
            _table.initiator_id == initiator_id,
            _table.status == "interrupted",
            *(_table[name] == 0 for name in TOKEN_COLUMNS),
        )
    )
    found = (await connection.execute(wanted)).scalar()
    return None if found is None else await read_one(connection, found)


async def read_owner(connection: AsyncConnection, provider: str, object_id: str) -> str | None:
    """Return the owner's id, or None. Provider and object id must be in their stored form."""
    wanted = select(objects.c.initiator_id).where(objects.c.provider == provider, objects.c.object_id == object_id)
    return (await connection.execute(wanted)).scalar()


async def read_tokens(connection: AsyncConnection, provider: str, object_id: str) -> int:
    """Return all tokens of the interception that made this object, 0 if unknown. Both names in their stored form."""
    wanted = (
        select(*(_table[name] for name in TOKEN_COLUMNS))
        .join(objects, objects.c.interception_id == _table.id)
        .where(objects.c.provider == provider, objects.c.object_id == object_id)
    )
    return sum((await connection.execute(wanted)).first() or ())
