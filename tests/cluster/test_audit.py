"""The audit: its entries, their masking and their pages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import SecretStr

from fastapi_aibridge.cluster.audit import AuditEntry, masked, read_page, record
from fastapi_aibridge.recorder import InvalidCursor
from fastapi_aibridge.recorder.cursor import encode_cursor
from fastapi_aibridge.recorder.database import Database
from fastapi_aibridge.recorder.jsonform import members
from fastapi_aibridge.recorder.store import SQLStore
from tests import processor_time

pytestmark = pytest.mark.anyio
KEY = "sk-0123456789abcdef-secret"


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    async with SQLStore(url, create=True) as store:
        await store.migrate()
        yield store.database


async def change(database: Database, number: int = 1, **values: Any) -> None:
    async with database.writing() as connection:
        await record(
            connection,
            **{
                "actor": "root",
                "action": "thing.update",
                "object": f"thing/{number}",
                "before": {"size": 1},
                "after": {"size": 2},
                **values,
            },
        )


async def entries(database: Database) -> list[AuditEntry]:
    async with database.reading() as connection:
        return (await read_page(connection)).items


async def test_a_change_is_read_as_it_was_written(database: Database) -> None:
    """An entry has the actor, the action, the object, its state before and after, and a time in UTC."""
    await change(database)
    await change(database, 2, before=None)
    newest, oldest = await entries(database)
    assert members(oldest) == {
        "at": members(oldest)["at"],
        "actor": "root",
        "action": "thing.update",
        "object": "thing/1",
        "before": {"size": 1},
        "after": {"size": 2},
    }
    assert (newest.object, newest.before) == ("thing/2", None)
    assert members(oldest)["at"].endswith("Z")
    assert newest.at >= oldest.at


async def test_a_change_that_is_undone_leaves_no_entry(database: Database) -> None:
    """An entry is part of the transaction that makes the change, and is rolled back with it."""

    async def fail() -> None:
        async with database.writing() as connection:
            await record(connection, actor="root", action="thing.update", object="thing/1", before=None, after={})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    assert await entries(database) == []


async def test_pages_join(database: Database) -> None:
    """Each page continues the one before without repetition, even if changes are made meanwhile."""
    for number in range(5):
        await change(database, number)
    found: list[str] = []
    cursor = None
    for _ in range(3):
        async with database.reading() as connection:
            page = await read_page(connection, limit=2, cursor=cursor)
        found += [entry.object for entry in page.items]
        cursor = page.next_cursor
        await change(database, 9)
    assert found == [f"thing/{number}" for number in (4, 3, 2, 1, 0)]
    assert cursor is None


async def test_changes_of_one_object(database: Database) -> None:
    """The entries of one object do not include those of others."""
    for number in (1, 2, 1):
        await change(database, number)
    async with database.reading() as connection:
        page = await read_page(connection, object="thing/1")
    assert [entry.object for entry in page.items] == ["thing/1"] * 2


@pytest.mark.parametrize(
    "cursor", ["x", "", "Zm9v", "\0", "é", encode_cursor(5, "budgets"), encode_cursor(-5, "audit")]
)
async def test_a_cursor_that_is_none(database: Database, cursor: str) -> None:
    """An invalid cursor raises `InvalidCursor`."""
    async with database.reading() as connection:
        with pytest.raises(InvalidCursor):
            await read_page(connection, cursor=cursor)


@pytest.mark.parametrize(
    "value",
    [
        {"api_key": KEY},
        {"API_KEYS": [KEY, KEY]},
        {"anything": SecretStr(KEY)},
        {"provider": {"extra_headers": {"X-Anything": KEY}}},
        {"headers": [["x", KEY]]},
        {"secret_access_key": KEY, "session_token": KEY, "password": KEY},
        {"url": f"https://user:{KEY}@example.com/mcp"},
        {"url": f"https://example.com/mcp?x=1&anything={KEY}"},
        {"servers": [{"proxy": f"http://{KEY}@proxy:3128"}]},
        {"proxy_of": f"http://user:p@{KEY}@proxy:3128"},
        {"proxy_of": f"http://user:p#{KEY}@proxy:3128"},
        {"proxy_of": f"http://{KEY}?p@proxy:3128"},
        {"place": f"https://example.com/{'p' * 5000}?anything={KEY}"},
        {"place": f"see https://example.com/a#b?anything={KEY} and https://example.com/?a={KEY}#b"},
    ],
)
async def test_secrets_are_masked(database: Database, value: dict[str, Any]) -> None:
    """Secrets are masked by their type, by the name of a member above them, and within URLs."""
    await change(database, before=value, after=value)
    (entry,) = await entries(database)
    assert KEY not in str(entry)
    assert "0123456789" not in str(entry)


async def test_what_is_no_secret_is_told(database: Database) -> None:
    """Hints, ids and names are not masked."""
    value = {
        "place": "see https://example.com:8443/a/b#c, not why?",
        "mail": "a@b.example",
        "key_hint": "aib_...1234",
        "api_key_id": "k-1",
        "models": ["gpt-*"],
        "max_tokens_note": "tokens",
    }
    await change(database, after=value)
    (entry,) = await entries(database)
    assert entry.after == value


async def test_entries_are_bounded(database: Database) -> None:
    """An entry with long or deep values or names is written, is small, and is marked as truncated."""
    deep: dict[str, Any] = {}
    for _ in range(2000):
        deep = {"deeper": deep}
    await change(
        database,
        actor="a" * 100_000,
        object="o\0" * 5000,
        before={"small": 1, "long": "x" * 100_000, "odd": "\ud800\0"},
        after={"deep": deep},
    )
    (entry,) = await entries(database)
    assert max(map(len, (entry.actor, entry.object))) <= 512
    assert (entry.before["truncated"], entry.before["small"]) == (True, 1)
    assert "long" not in entry.before
    assert len(str(entry)) < 5000


@pytest.mark.parametrize("piece", ["://", "://a", "a://b@", "://@", "://a?", "?", "@", "a", "https://a:b@c/d?e#f "])
def test_masking_is_quick(piece: str) -> None:
    """A text as large as a body may be is masked in some milliseconds, whatever it is made of."""
    text = piece * (256 * 1024 // len(piece))
    assert processor_time.least(lambda: processor_time.of(lambda: masked(text)), 0.2) < 0.2
