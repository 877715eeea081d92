"""Providers and MCP servers in the database."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import select

from fastapi_aibridge.cluster.audit import read_page
from fastapi_aibridge.cluster.cipher import Cipher
from fastapi_aibridge.cluster.managed_form import MODELS, SECRETS, InvalidSettings, Kind, ManagedEntry, checked, shown
from fastapi_aibridge.cluster.managed_settings import ManagedSettings, TooManyEntries, managed_settings
from fastapi_aibridge.cluster.versions import SETTINGS, read_version
from fastapi_aibridge.errors import SettingsError
from fastapi_aibridge.recorder.schema import metadata
from fastapi_aibridge.recorder.store import SQLStore

pytestmark = pytest.mark.anyio

OLD, NEW = (SecretStr(base64.urlsafe_b64encode(bytes([number]) * 32).decode()) for number in (1, 2))
OPENAI = {"type": "openai", "api_key": "sk-very-secret-key", "max_retries": 3}
FILES = {"url": "https://files.example/mcp?key=hidden-in-url", "headers": {"Authorization": "Bearer hidden-token"}}


@pytest.fixture
async def store(url: str) -> AsyncIterator[SQLStore]:
    async with SQLStore(url, create=True) as opened:
        await opened.migrate()
        yield opened


@pytest.fixture
def managed(store: SQLStore) -> ManagedSettings:
    return ManagedSettings(store.database, Cipher([OLD]))


async def put(managed: ManagedSettings, kind: Kind, name: str, body: Mapping[str, Any] | None) -> ManagedEntry | None:
    return await managed.change(kind, name, lambda _: body, actor="root", action="put")


async def dump(store: SQLStore) -> str:
    texts = []
    async with store.database.reading() as connection:
        for table in metadata.sorted_tables:
            texts += [repr(tuple(row)) for row in await connection.execute(select(table))]
    return "\n".join(texts)


async def version(store: SQLStore) -> int:
    async with store.database.reading() as connection:
        return await read_version(connection, SETTINGS)


async def test_what_is_written_is_read_again(managed: ManagedSettings) -> None:
    await put(managed, Kind.PROVIDER, "house", OPENAI)
    await put(managed, Kind.MCP_SERVER, "files", FILES)
    assert [(entry.kind, entry.name, entry.body) for entry in await managed.all()] == [
        (Kind.MCP_SERVER, "files", FILES),
        (Kind.PROVIDER, "house", OPENAI),
    ]


async def test_no_secret_is_in_the_database(store: SQLStore, managed: ManagedSettings) -> None:
    """No secret is in the database or in the audit, before and after a change."""
    await put(managed, Kind.PROVIDER, "house", {**OPENAI, "proxy": "http://user:hidden-pass@proxy:3128"})
    await put(managed, Kind.PROVIDER, "house", {**OPENAI, "extra_headers": {"X-Team": "hidden-header"}})
    await put(managed, Kind.MCP_SERVER, "files", FILES)
    await put(managed, Kind.MCP_SERVER, "files", None)
    text = await dump(store)
    assert "house" in text
    assert "sk-very-secret-key" not in text
    assert "hidden" not in text


def test_every_secret_of_the_settings_is_known() -> None:
    """Every member of the settings that may hold a secret is encrypted, so that a new one is not forgotten."""
    for kind, model in MODELS.items():
        secret = {name for name, field in model.model_fields.items() if "SecretStr" in str(field.annotation)}
        assert secret <= set(SECRETS[kind])


async def test_each_change_has_its_version_and_its_line(store: SQLStore, managed: ManagedSettings) -> None:
    before = await version(store)
    await put(managed, Kind.PROVIDER, "house", OPENAI)
    await put(managed, Kind.PROVIDER, "house", {**OPENAI, "max_retries": 5})
    await put(managed, Kind.PROVIDER, "house", None)
    assert await version(store) == before + 3
    async with store.database.reading() as connection:
        entries = (await read_page(connection)).items
    assert [(one.action, one.object) for one in entries] == [("provider.put", "provider/house")] * 3
    made, changed, removed = reversed(entries)
    assert (made.before, removed.after) == (None, None)
    assert (changed.before["max_retries"], changed.after["max_retries"]) == (3, 5)


async def test_there_are_only_so_many(managed: ManagedSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of entries is limited, because every worker holds all of them; existing ones can be changed."""
    monkeypatch.setattr("fastapi_aibridge.cluster.managed_settings.MAX_ENTRIES", 2)
    for name in ("one", "two"):
        await put(managed, Kind.PROVIDER, name, OPENAI)
    with pytest.raises(TooManyEntries):
        await put(managed, Kind.PROVIDER, "three", OPENAI)
    await put(managed, Kind.PROVIDER, "two", {**OPENAI, "max_retries": 1})
    await put(managed, Kind.MCP_SERVER, "files", FILES)
    await put(managed, Kind.PROVIDER, "one", None)
    await put(managed, Kind.PROVIDER, "three", OPENAI)
    assert [entry.name for entry in await managed.all()] == ["files", "three", "two"]


async def test_removing_what_is_not_there_changes_nothing(store: SQLStore, managed: ManagedSettings) -> None:
    assert await put(managed, Kind.PROVIDER, "house", None) is None
    assert await version(store) == 0


async def test_changes_at_one_moment(store: SQLStore, managed: ManagedSettings) -> None:
    """Concurrent changes are serialised: each sees the earlier ones, and none is refused or lost."""
    await put(managed, Kind.PROVIDER, "house", {**OPENAI, "extra_headers": {}})
    before = await version(store)

    def adding(number: int) -> Callable[[ManagedEntry | None], dict[str, Any]]:
        def edit(entry: ManagedEntry | None) -> dict[str, Any]:
            body = {} if entry is None else entry.body
            return {**body, "extra_headers": {**body["extra_headers"], f"x-{number}": "1"}}

        return edit

    await asyncio.gather(
        *(managed.change(Kind.PROVIDER, "house", adding(number), actor="x", action="put") for number in range(8))
    )
    entry = await managed.one(Kind.PROVIDER, "house")
    assert entry is not None
    assert sorted(entry.body["extra_headers"]) == [f"x-{number}" for number in range(8)]
    assert await version(store) == before + 8


async def test_an_edit_that_refuses_changes_nothing(store: SQLStore, managed: ManagedSettings) -> None:
    def refuse(_: ManagedEntry | None) -> None:
        raise PermissionError

    before = await version(store)
    with pytest.raises(PermissionError):
        await managed.change(Kind.PROVIDER, "house", refuse, actor="x", action="put")
    assert await version(store) == before


async def test_an_entry_that_was_made_again_is_another(managed: ManagedSettings) -> None:
    """An entry that is created again has another tag."""
    first = await put(managed, Kind.PROVIDER, "house", OPENAI)
    await put(managed, Kind.PROVIDER, "house", None)
    second = await put(managed, Kind.PROVIDER, "house", OPENAI)
    assert first is not None
    assert second is not None
    assert first.etag != second.etag


async def test_secrets_that_no_key_fits(managed: ManagedSettings) -> None:
    """An entry whose secrets cannot be decrypted reports an error, and the others can be read."""
    await put(managed, Kind.PROVIDER, "house", OPENAI)
    await put(managed, Kind.PROVIDER, "own", {"type": "openai", "byok": True})
    for cipher in (Cipher([NEW]), None):
        house, own = await ManagedSettings(managed._database, cipher).all()
        assert house.problem is not None
        assert "AIBRIDGE_SECRET_KEYS" in house.problem
        assert own.problem is None


async def test_secrets_need_a_key(managed: ManagedSettings) -> None:
    without = ManagedSettings(managed._database, None)
    with pytest.raises(SettingsError, match="AIBRIDGE_SECRET_KEYS is not set"):
        await put(without, Kind.PROVIDER, "house", OPENAI)
    assert await managed.all() == []


async def test_rotation(managed: ManagedSettings) -> None:
    """After a rotation the new key alone is enough; a rotation with a missing key changes nothing."""
    await put(managed, Kind.PROVIDER, "house", OPENAI)
    assert await ManagedSettings(managed._database, Cipher([NEW, OLD])).rotate(actor="root") == 1
    (entry,) = await ManagedSettings(managed._database, Cipher([NEW])).all()
    assert entry.body == OPENAI
    with pytest.raises(SettingsError, match="no key fits the secrets of provider 'house'"):
        await managed.rotate(actor="root")


async def test_a_secret_that_is_changed_while_others_are_rotated(store: SQLStore, managed: ManagedSettings) -> None:
    """A secret that is changed during a rotation keeps its new value."""
    if store.database.is_sqlite:
        pytest.skip("there is one writer at a time")
    await put(managed, Kind.PROVIDER, "first", OPENAI)
    await put(managed, Kind.PROVIDER, "second", OPENAI)
    async with store.database.writing() as other:
        await other.execute(select(managed_settings).where(managed_settings.c.name == "first").with_for_update())
        rotation = asyncio.ensure_future(managed.rotate(actor="root"))
        await asyncio.sleep(0.2)  # it waits for the other transaction
        await put(managed, Kind.PROVIDER, "second", OPENAI | {"api_key": "sk-new"})
    await rotation
    second = await managed.one(Kind.PROVIDER, "second")
    assert second is not None
    assert second.body["api_key"] == "sk-new"


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "", "x" * 5000])
async def test_what_nothing_can_be_called_is_not_there(managed: ManagedSettings, name: str) -> None:
    assert await managed.one(Kind.PROVIDER, name) is None


@pytest.mark.parametrize(
    ("kind", "name", "body", "place"),
    [
        (Kind.PROVIDER, "house", {"type": "openai", "api_key": "sk", "max_retries": 99}, "max_retries"),
        (Kind.PROVIDER, "house", {"type": "openai", "api_key": "sk secret"}, "api_key"),
        (Kind.PROVIDER, "house", {"type": "openai", "apikey": "sk-secret"}, "apikey"),
        (Kind.PROVIDER, "house", {"type": "nonsense", "api_key": "sk"}, "type"),
        (Kind.PROVIDER, "house", {"type": "openai"}, "api_key"),
        (Kind.PROVIDER, "admin", OPENAI, "name"),
        (Kind.PROVIDER, "House", OPENAI, "name"),
        (Kind.PROVIDER, "x" * 129, OPENAI, "name"),
        (Kind.MCP_SERVER, "files", {}, "url"),
        (Kind.MCP_SERVER, "files", {"url": "no-url-secret"}, "url"),
        (Kind.MCP_SERVER, "files", {**FILES, "tool_allow": "("}, "tool_allow"),
    ],
)
async def test_what_does_not_validate(
    managed: ManagedSettings, kind: Kind, name: str, body: dict[str, Any], place: str
) -> None:
    """The error names the invalid member and not its value, and nothing is written."""
    with pytest.raises(InvalidSettings) as raised:
        await put(managed, kind, name, body)
    assert [".".join(map(str, one.place)) for one in raised.value.members] == [place]
    assert "secret" not in str(raised.value)
    assert await managed.all() == []


def test_secrets_are_shown_as_hints() -> None:
    assert shown(Kind.PROVIDER, OPENAI | {"api_keys": ["sk-another-secret"]}) == {
        "type": "openai",
        "api_key": "sk-...-key",
        "api_keys": ["sk-...cret"],
        "max_retries": 3,
    }
    assert shown(Kind.MCP_SERVER, FILES)["url"] == "https://files.example/..."
    assert "hidden" not in str(shown(Kind.MCP_SERVER, FILES)).replace("hidden-in-url", "x")


def test_a_checked_provider_is_complete() -> None:
    provider = checked(Kind.PROVIDER, "openai", {"api_key": "sk-x"})
    assert str(getattr(provider, "base_url", "")) == "https://api.openai.com/v1"
