"""Client keys in the database: create, list, revoke, and look up by digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Column, Index, LargeBinary, Table, Text, bindparam, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ..masking import hint
from ..recorder import InvalidCursor
from ..recorder.clock import NOW
from ..recorder.cursor import decode_cursor, encode_cursor, from_microseconds, to_microseconds
from ..recorder.database import Database
from ..recorder.identifier import new_id
from ..recorder.jsonform import members
from ..recorder.schema import metadata
from ..recorder.text import cut_key, dump, load
from . import audit
from .client_key import ClientKey, KeyRequest
from .key_text import new_key
from .versions import CLIENT_KEYS, bump

LARGEST_PAGE = 500
_ID_LIMIT = 64

client_keys = Table(
    "aibridge_client_keys",
    metadata,
    Column("id", Text, primary_key=True),
    # SHA-256: the keys have 256 random bits, so no slower hash is needed.
    Column("digest", LargeBinary, nullable=False),
    Column("hint", Text, nullable=False),
    Column("initiator_id", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("groups", Text, nullable=False),
    Column("models", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
    Column("last_used_at", BigInteger),
    # The version of all client keys at which this one last changed: workers ask for rows newer than their version.
    Column("version", BigInteger, nullable=False),
    Index("aibridge_client_keys_digest", "digest", unique=True),
    Index("aibridge_client_keys_initiator", "initiator_id", "id"),
    Index("aibridge_client_keys_version", "version"),
)
_table = client_keys.c


@dataclass(frozen=True, slots=True)
class KeyPage:
    items: list[ClientKey]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class KeyChange:
    """A key that was created or revoked."""

    version: int
    id: str
    digest: bytes
    initiator_id: str
    is_revoked: bool


def digest_of(key: bytes) -> bytes:
    """The stored form of a client key: its SHA-256 digest."""
    return hashlib.sha256(key).digest()


async def create(database: Database, asked: KeyRequest, actor: str) -> tuple[ClientKey, str]:
    """Create a key. Returns it with its text, which is not stored and cannot be shown again."""
    text = new_key()
    async with database.writing() as connection:
        version = await bump(connection, CLIENT_KEYS)
        now = await connection.scalar(select(NOW))
        row = {
            "id": new_id(),
            "digest": digest_of(text.encode()),
            "hint": hint(text),
            "initiator_id": asked.initiator_id,
            "label": asked.label,
            "groups": dump(asked.groups),
            "models": None if asked.models is None else dump(asked.models),
            "created_at": now,
            "expires_at": None if asked.expires_at is None else to_microseconds(asked.expires_at),
            "revoked_at": None,
            "last_used_at": None,
            "version": version,
        }
        await connection.execute(insert(client_keys).values(row))
        key = _key(row)
        await audit.record(
            connection,
            actor=actor,
            action="client_key.create",
            object=f"client_key/{key.id}",
            before=None,
            after=_audited(key),
        )
    return key, text


async def revoke(database: Database, key_id: str, actor: str) -> ClientKey | None:
    """Revoke a key for good and return it; None if there is no such key. A key revoked before is left unchanged."""
    key_id = cut_key(key_id, _ID_LIMIT)
    async with database.writing() as connection:
        before = await _one(connection, key_id)
        if before is None or before.revoked_at is not None:
            return before
        version = await bump(connection, CLIENT_KEYS)
        changed = await connection.execute(
            update(client_keys)
            .where(_table.id == key_id, _table.revoked_at.is_(None))
            .values(revoked_at=NOW, version=version)
        )
        after = await _one(connection, key_id)
        if after is not None and changed.rowcount:  # not if another call revoked it first
            await audit.record(
                connection,
                actor=actor,
                action="client_key.revoke",
                object=f"client_key/{key_id}",
                before=_audited(before),
                after=_audited(after),
            )
    return after


async def read_page(
    connection: AsyncConnection, *, limit: int = 50, cursor: str | None = None, initiator_id: str | None = None
) -> KeyPage:
    """Return one page of keys, newest first, including revoked and expired ones. Raises `InvalidCursor`."""
    limit = min(max(limit, 1), LARGEST_PAGE)
    wanted = select(client_keys).order_by(_table.id.desc()).limit(limit + 1)
    if cursor is not None:
        start, key_id = decode_cursor(cursor)
        if start:  # of a listing of interceptions or changes
            raise InvalidCursor("the cursor is not one of this listing's")
        wanted = wanted.where(_table.id < cut_key(key_id, _ID_LIMIT))
    if initiator_id is not None:
        wanted = wanted.where(_table.initiator_id == cut_key(initiator_id, 2048))
    rows = (await connection.execute(wanted)).mappings().all()
    items = [_key(row) for row in rows[:limit]]
    return KeyPage(items, encode_cursor(0, items[-1].id) if len(rows) > limit else None)


async def find(connection: AsyncConnection, digest: bytes) -> ClientKey | None:
    """Return the key with this digest; None if there is none."""
    row = (await connection.execute(select(client_keys).where(_table.digest == digest))).mappings().first()
    return None if row is None else _key(row)


async def changes_since(connection: AsyncConnection, version: int, limit: int) -> list[KeyChange]:
    """Return the keys that changed after this version, in the order of their versions."""
    rows = await connection.execute(
        select(_table.version, _table.id, _table.digest, _table.initiator_id, _table.revoked_at)
        .where(_table.version > version)
        .order_by(_table.version)
        .limit(limit)
    )
    return [
        KeyChange(row.version, row.id, row.digest, row.initiator_id, is_revoked=row.revoked_at is not None)
        for row in rows
    ]


async def note_uses(connection: AsyncConnection, uses: Mapping[str, int]) -> None:
    """Store the time of each key's last use, in microseconds by key id. A later time already stored stays."""
    moment: Any = bindparam("used")
    # In a fixed order, or two workers could deadlock on each other's rows.
    rows = [{"key_id": key_id, "used": used} for key_id, used in sorted(uses.items())]
    is_newer = func.coalesce(_table.last_used_at, 0) < moment
    await connection.execute(
        update(client_keys).where(_table.id == bindparam("key_id"), is_newer).values(last_used_at=moment),
        rows,
    )


async def _one(connection: AsyncConnection, key_id: str) -> ClientKey | None:
    row = (await connection.execute(select(client_keys).where(_table.id == key_id))).mappings().first()
    return None if row is None else _key(row)


def _key(row: Mapping[Any, Any]) -> ClientKey:
    return ClientKey(
        id=row["id"],
        hint=row["hint"],
        initiator_id=row["initiator_id"],
        label=row["label"],
        groups=tuple(load(row["groups"])),
        models=None if row["models"] is None else tuple(load(row["models"])),
        created_at=from_microseconds(row["created_at"]),
        expires_at=_moment(row["expires_at"]),
        revoked_at=_moment(row["revoked_at"]),
        last_used_at=_moment(row["last_used_at"]),
    )


def _moment(value: int | None) -> datetime | None:
    return None if value is None else from_microseconds(value)


def _audited(key: ClientKey) -> dict[str, Any]:
    """The members of a key that the audit records."""
    names: Iterable[str] = ("initiator_id", "label", "hint", "groups", "models", "expires_at", "revoked_at")
    told = members(key)
    return {name: told[name] for name in names}
