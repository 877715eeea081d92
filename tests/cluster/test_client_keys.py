"""Client keys in the database."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zlib import crc32

import pytest
from sqlalchemy import text

from fastapi_aibridge.cluster import audit, client_keys
from fastapi_aibridge.cluster.client_key import ClientKey, KeyRequest
from fastapi_aibridge.cluster.key_text import is_key, new_key
from fastapi_aibridge.recorder import InvalidCursor
from fastapi_aibridge.recorder.cursor import encode_cursor
from fastapi_aibridge.recorder.database import Database
from fastapi_aibridge.recorder.jsonform import members

pytestmark = pytest.mark.anyio


async def made(database: Database, initiator: str = "alice", **values: Any) -> tuple[ClientKey, str]:
    return await client_keys.create(database, KeyRequest(initiator_id=initiator, **values), "root")


async def listed(database: Database, **values: Any) -> client_keys.KeyPage:
    async with database.reading() as connection:
        return await client_keys.read_page(connection, **values)


async def everything(database: Database) -> str:
    """All rows of all tables as text, with digests in hexadecimal."""
    async with database.reading() as connection:
        tables = await connection.execute(
            text(
                "SELECT name FROM sqlite_master WHERE type = 'table'"
                if database.is_sqlite
                else "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
            )
        )
        rows = [row for (table,) in tables for row in await connection.execute(text(f'SELECT * FROM "{table}"'))]
    return "\n".join(" ".join(one.hex() if isinstance(one, bytes) else str(one) for one in row) for row in rows)


async def test_a_key_is_kept_without_the_key(database: Database) -> None:
    """The database holds a key's digest and hint; the key itself, or most of it, is in no table."""
    later = datetime.now(UTC) + timedelta(days=1)
    key, secret = await made(database, label="laptop", expires_at=later, groups=("staff",), models=("gpt-*",))
    assert (await listed(database)).items == [key]
    assert (key.initiator_id, key.label, key.groups, key.models) == ("alice", "laptop", ("staff",), ("gpt-*",))
    assert key.expires_at == later
    assert (key.revoked_at, key.last_used_at, key.origin) == (None, None, "database")
    dump = await everything(database)
    assert key.hint in dump
    assert key.id in dump
    for part in (secret, secret.encode().hex(), secret[4:24], secret[-20:]):
        assert part not in dump


async def test_the_key_finds_itself(database: Database) -> None:
    """A key is found by its digest, and not by the digest of another text."""
    key, secret = await made(database)
    async with database.reading() as connection:
        assert await client_keys.find(connection, client_keys.digest_of(secret.encode())) == key
        assert await client_keys.find(connection, client_keys.digest_of(secret[:-1].encode())) is None


async def test_revoking(database: Database) -> None:
    """A revocation is final; a second one changes nothing and makes no entry in the audit."""
    key, _ = await made(database)
    first = await client_keys.revoke(database, key.id, "root")
    second = await client_keys.revoke(database, key.id, "other")
    assert first is not None
    assert first.revoked_at is not None
    assert second == first
    for id_ in ("", "no such", "\0", "x" * 10_000, "\ud800"):
        assert await client_keys.revoke(database, id_, "root") is None
    async with database.reading() as connection:
        entries = (await audit.read_page(connection)).items
    assert [(entry.actor, entry.action, entry.object) for entry in entries] == [
        ("root", "client_key.revoke", f"client_key/{key.id}"),
        ("root", "client_key.create", f"client_key/{key.id}"),
    ]
    assert entries[0].before["revoked_at"] is None
    assert entries[0].after["revoked_at"] == members(first)["revoked_at"]
    assert entries[1].after["hint"] == key.hint


async def test_two_who_revoke_at_once_are_one_entry(database: Database) -> None:
    """Two concurrent revocations make one entry in the audit."""
    key, _ = await made(database)
    both = await asyncio.gather(*(client_keys.revoke(database, key.id, actor) for actor in "ab"))
    assert both[0] == both[1]
    async with database.reading() as connection:
        assert len((await audit.read_page(connection)).items) == 2


async def test_pages(database: Database) -> None:
    """Pages are newest first, of one initiator or of all, and continue each other; a foreign cursor is refused."""
    keys = [(await made(database, name))[0] for name in ("alice", "bob", "alice", "carol", "alice")]
    found: list[ClientKey] = []
    cursor = None
    for _ in range(3):
        page = await listed(database, limit=2, cursor=cursor)
        found += page.items
        cursor = page.next_cursor
    assert [key.id for key in found] == sorted((key.id for key in keys), reverse=True)
    assert cursor is None
    assert {key.initiator_id for key in (await listed(database, initiator_id="alice")).items} == {"alice"}
    for foreign in ("nonsense", encode_cursor(5, "audit")):
        with pytest.raises(InvalidCursor):
            await listed(database, cursor=foreign)


async def test_changes_are_in_the_order_of_their_versions(database: Database) -> None:
    """Each changed key is listed once by its version, and a reader of one version has seen all earlier ones."""
    keys = await asyncio.gather(*(made(database, str(number)) for number in range(8)))
    await client_keys.revoke(database, keys[0][0].id, "root")
    async with database.reading() as connection:
        changes = await client_keys.changes_since(connection, 0, 100)
        assert len(changes) == 8
        versions = [change.version for change in changes]
        assert versions == sorted(set(versions))
        assert [(change.id, change.is_revoked) for change in changes][-1] == (keys[0][0].id, True)
        assert len(await client_keys.changes_since(connection, versions[3], 100)) == 4
        assert len(await client_keys.changes_since(connection, 0, 3)) == 3


async def test_uses_only_move_on(database: Database) -> None:
    """The last use of a key only moves forward, in whatever order workers write it; deleted keys do no harm."""
    key, _ = await made(database)
    for used in (2_000_000, 3_000_000, 1_000_000):
        async with database.writing() as connection:
            await client_keys.note_uses(connection, {key.id: used, "gone": used})
    (known,) = (await listed(database)).items
    assert known.last_used_at == datetime.fromtimestamp(3, UTC)


async def test_two_workers_that_note_the_same_keys_do_not_wait_for_each_other(database: Database) -> None:
    """Concurrent writes of the same keys' uses in different orders do not deadlock."""
    keys = [(await made(database))[0].id for _ in range(200)]

    async def note(order: list[str]) -> None:
        for moment in range(1, 6):
            async with database.writing() as connection:
                await client_keys.note_uses(connection, dict.fromkeys(order, moment))

    await asyncio.gather(note(keys), note(keys[::-1]))
    assert all(key.last_used_at for key in (await listed(database, limit=500)).items)


@pytest.mark.parametrize(
    "values",
    [
        {"initiator_id": ""},
        {"initiator_id": "a" * 513},
        {"initiator_id": "\0"},
        {"groups": ("",)},
        {"groups": tuple(map(str, range(65)))},
        {"models": ("x" * 257,)},
        {"label": "x" * 201},
        {"label": "two\nlines"},
        {"expires_at": datetime(2200, 1, 1)},  # noqa: DTZ001 - that is what is refused
        {"expires_at": datetime(2020, 1, 1, tzinfo=UTC)},
        {"expires_at": datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-2)))},
    ],
)
def test_what_no_key_can_be(values: dict[str, Any]) -> None:
    """Invalid values of a key are refused before anything is written."""
    with pytest.raises(ValueError, match=r"."):
        KeyRequest(**{"initiator_id": "alice", **values})


def test_the_text_of_a_key() -> None:
    """A key has a prefix for secret scanners, 256 random bits, and a checksum that other texts fail."""
    keys = {new_key() for _ in range(1000)}
    assert len(keys) == 1000
    for key in keys:
        assert re.fullmatch("aib_[0-9A-Za-z]{49}", key)
        assert is_key(key.encode())
    key = keys.pop()
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    assert sum(digits.index(one) * 62**place for place, one in enumerate(reversed(key[-6:]))) == crc32(
        key[:-6].encode()
    )
    other = "b" if key[10] == "a" else "a"
    for wrong in (key[:-1], key + "a", "", "aib_", "x" * 53, key[:10] + other + key[11:], "é" * 53):
        assert not is_key(wrong.encode())
