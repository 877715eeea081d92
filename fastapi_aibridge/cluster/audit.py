"""The audit: who changed what through the admin API or the command line, with the values before and after."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import SecretStr
from sqlalchemy import BigInteger, Column, Index, Integer, Table, Text, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ..masking import hint
from ..recorder.clock import NOW
from ..recorder.cursor import decode_place, encode_cursor, from_microseconds
from ..recorder.schema import metadata
from ..recorder.text import cut_key, dump, dump_bytes, load

_TEXT_LIMIT = 512
"""Bytes of an actor, an action or an object."""
_VALUE_LIMIT = 16 * 1024
"""Bytes of JSON of the value before a change, and of the value after it."""
_DEPTH = 16
_LISTING = "audit"
LARGEST_PAGE = 500

_SECRET = re.compile(r"(^|_)(keys?|tokens?|secrets?|passwords?|credentials?|authorization|cookie|headers|cert|proxy)$")
"""Names of members whose values are secret, with everything below them. Not `api_key_id` or `key_hint`."""
_URL = re.compile(r"://\S+")
"""A URL without its scheme. It goes on to the end of the word, so that a text is searched in one pass."""
_USER_INFO = re.compile(r"(?<=://)[^/?\s]+(?=@)")
"""The user name and password in a URL."""

audit = Table(
    "aibridge_audit",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("object", Text, nullable=False),
    Column("before", Text),
    Column("after", Text),
    Index("aibridge_audit_object", "object", "seq"),
)


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One change. `before` is None for a new object, `after` for a removed one; their secrets are replaced by hints."""

    at: datetime
    actor: str
    action: str
    object: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class AuditPage:
    items: list[AuditEntry]
    next_cursor: str | None


async def record(
    connection: AsyncConnection,
    *,
    actor: str,
    action: str,
    object: str,  # noqa: A002 - the word of the HTTP API
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> None:
    """Record one change in the transaction that makes it, so that both are committed or neither is.

    `action` names the kind of object and a verb (`client_key.create`), `object` the changed object (`client_key/<id>`).
    Secrets in `before` and `after` are replaced by hints: every `SecretStr`, and every member whose name marks it as
    secret (`api_key`, `headers`, ...). Members of a value that is too long are left out. The time is the database's.
    """
    await connection.execute(
        insert(audit).values(
            at=NOW,
            actor=cut_key(actor, _TEXT_LIMIT),
            action=cut_key(action, _TEXT_LIMIT),
            object=cut_key(object, _TEXT_LIMIT),
            before=None if before is None else _value_text(before),
            after=None if after is None else _value_text(after),
        )
    )


async def read_page(
    connection: AsyncConnection,
    *,
    limit: int = 50,
    cursor: str | None = None,
    object: str | None = None,  # noqa: A002
) -> AuditPage:
    """Return one page of changes, newest first, of one object or of all. Raises `InvalidCursor`."""
    limit = min(max(limit, 1), LARGEST_PAGE)
    wanted = select(audit).order_by(audit.c.seq.desc()).limit(limit + 1)
    if cursor is not None:
        wanted = wanted.where(audit.c.seq < decode_place(cursor, _LISTING))
    if object is not None:
        wanted = wanted.where(audit.c.object == cut_key(object, _TEXT_LIMIT))
    rows = (await connection.execute(wanted)).all()
    items = [
        AuditEntry(
            from_microseconds(row.at), row.actor, row.action, row.object, _loaded(row.before), _loaded(row.after)
        )
        for row in rows[:limit]
    ]
    return AuditPage(items, encode_cursor(rows[limit - 1].seq, _LISTING) if len(rows) > limit else None)


def masked(value: Any, *, secret: bool = False, depth: int = 0) -> Any:
    """Return a JSON value with hints in place of secrets; `secret` says that every string in it is one."""
    if isinstance(value, SecretStr):
        return hint(value.get_secret_value())
    if isinstance(value, str):
        return hint(value) if secret else _URL.sub(_plain_url, value)
    if isinstance(value, Mapping | list | tuple | set | frozenset) and depth >= _DEPTH:
        return "..."
    if isinstance(value, Mapping):
        return {
            str(name): masked(one, secret=secret or _SECRET.search(str(name).lower()) is not None, depth=depth + 1)
            for name, one in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [masked(one, secret=secret, depth=depth + 1) for one in value]
    return value


def _plain_url(match: re.Match[str]) -> str:
    """Return the URL without its user, its password, and its query, which may hold a key."""
    place, mark, query = match[0].partition("?")
    if "@" in query and "/" not in place.removeprefix("://"):
        place = "://***"  # the question mark may stand in a password
    return _USER_INFO.sub("***", place) + mark + ("***" if query else "")


def _value_text(value: Mapping[str, Any]) -> str:
    shown: dict[str, Any] = masked(value)
    text = dump(shown)
    if len(text.encode()) <= _VALUE_LIMIT:
        return text
    kept: dict[str, Any] = {"truncated": True}
    room = _VALUE_LIMIT - 32
    for name, one in shown.items():
        size = len(dump_bytes({name: one}))
        if size <= room:
            kept[name] = one
            room -= size
    return dump(kept)


def _loaded(text: str | None) -> Any:
    return None if text is None else load(text)
