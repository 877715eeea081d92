"""The client keys that a worker caches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fastapi_aibridge.cluster import client_keys, key_cache
from fastapi_aibridge.cluster.client_key import ClientKey, KeyRequest
from fastapi_aibridge.cluster.client_keys import digest_of
from fastapi_aibridge.cluster.key_cache import KeyCache
from fastapi_aibridge.cluster.key_text import new_key
from fastapi_aibridge.cluster.managed_keys import ManagedKeys
from fastapi_aibridge.errors import RecorderUnavailable
from fastapi_aibridge.principal import Principal
from fastapi_aibridge.recorder.database import Database
from tests.waiting import until

pytestmark = pytest.mark.anyio


class Worker:
    """A worker's cache, whose clock and checks of the version a test controls."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.begun = datetime.now(UTC)
        self.time = self.begun.timestamp()
        self.cut: list[tuple[tuple[str, str], str]] = []
        self.look_ups = 0
        self.cache = KeyCache(database, self, self.cut_off, clock=lambda: self.time)

    def version(self, name: str) -> int:
        return 0

    def follow(self, name: str, changed: Callable[[int], Awaitable[None]], *, known: int | None = None) -> None:
        assert (name, known) == ("client_keys", 0)

    def cut_off(self, key: tuple[str, str], error: Callable[[], Exception]) -> None:
        self.cut.append((key, error().code))  # type: ignore[attr-defined]

    def known(self, secret: str) -> Principal | None:
        return self.cache.known(digest_of(secret.encode()))

    async def find(self, secret: str) -> Principal | None:
        return await self.cache.find(secret.encode())


@pytest.fixture
async def worker(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Worker]:
    worker = Worker(database)

    async def counting(*arguments: Any) -> ClientKey | None:
        worker.look_ups += 1
        return await client_keys.find(*arguments)

    monkeypatch.setattr(key_cache, "find", counting)
    yield worker
    await worker.cache.aclose()


async def made(database: Database, **values: Any) -> tuple[ClientKey, str]:
    return await client_keys.create(database, KeyRequest(**{"initiator_id": "alice", **values}), "root")


async def test_a_key_is_looked_up_once(worker: Worker) -> None:
    """Concurrent requests with one key need few look-ups; its principal has the initiator and the key's id."""
    key, secret = await made(worker.database, groups=("staff",), models=("gpt-*",))
    assert worker.known(secret) is None
    principals = await asyncio.gather(*(worker.find(secret) for _ in range(20)))
    assert set(map(id, principals)) == {id(worker.known(secret))}
    assert principals[0] == Principal("alice", key.id, groups=("staff",), models=("gpt-*",))
    assert worker.look_ups <= key_cache.LOOK_UPS
    await worker.find(secret)
    assert worker.look_ups <= key_cache.LOOK_UPS


async def test_what_is_no_key_is_looked_up_once_or_not_at_all(worker: Worker) -> None:
    """An unknown key is looked up once, and a text without the right checksum never."""
    unknown = new_key()
    for _ in range(3):
        for token in (unknown, "demo-alice", unknown[:-1] + "-", "x" * 1_000_000):
            assert await worker.find(token) is None
    assert worker.look_ups == 1


async def test_a_key_that_was_tried_before_it_was_made(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that was unknown when it was tried is looked up again after a change."""
    secret = new_key()
    assert await worker.find(secret) is None
    monkeypatch.setattr(client_keys, "new_key", lambda: secret)
    await made(worker.database)
    await worker.cache.catch_up()
    assert await worker.find(secret) is not None


async def test_a_key_that_is_revoked_elsewhere(worker: Worker) -> None:
    """After a revocation is seen, the key is dropped and its running requests are cut off."""
    key, secret = await made(worker.database)
    other, other_secret = await made(worker.database, initiator_id="bob")
    await worker.find(secret)
    await worker.find(other_secret)
    await client_keys.revoke(worker.database, key.id, "root")
    await worker.cache.catch_up()
    assert worker.cut == [(("alice", key.id), "key_revoked")]
    assert worker.known(secret) is None
    assert await worker.find(secret) is None
    found = await worker.find(other_secret)
    assert found is not None
    assert found.api_key_id == other.id


async def test_a_revocation_during_the_look_up(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that was read before its revocation is not cached after it."""
    key, secret = await made(worker.database)
    original = client_keys.find

    async def overtaken(*arguments: Any) -> ClientKey | None:
        read = await original(*arguments)
        if not worker.cut:
            await client_keys.revoke(worker.database, key.id, "root")
            await worker.cache.catch_up()
        return read

    monkeypatch.setattr(key_cache, "find", overtaken)
    assert await worker.find(secret) is None
    assert worker.cut == [(("alice", key.id), "key_revoked")]


async def test_more_changes_than_one_page(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker follows all changes at once, even if they fill several pages."""
    monkeypatch.setattr(key_cache, "_PAGE", 2)
    for number in range(5):
        key, _ = await made(worker.database, initiator_id=str(number))
        await client_keys.revoke(worker.database, key.id, "root")
    await worker.cache.catch_up()
    assert [key for (key, _), _ in worker.cut] == list("01234")


async def test_a_key_that_expires(worker: Worker) -> None:
    """An expired key is refused at once, not at the next check, and its running requests are cut off."""
    key, secret = await made(worker.database, expires_at=worker.begun + timedelta(seconds=100))
    _, longer = await made(worker.database, initiator_id="bob", expires_at=worker.begun + timedelta(seconds=200))
    assert await worker.find(secret)
    assert await worker.find(longer)
    worker.time += 99.9
    assert worker.known(secret)
    worker.time += 0.1
    assert worker.known(secret) is None
    assert worker.cut == [(("alice", key.id), "key_expired")]
    assert await worker.find(secret) is None
    assert worker.known(longer)


async def test_expiry_needs_no_traffic(database: Database) -> None:
    """A timer expires a key without any request."""
    worker = Worker(database)
    key, secret = await made(database, expires_at=datetime.now(UTC) + timedelta(seconds=0.4))
    worker.time = datetime.now(UTC).timestamp()
    assert await worker.find(secret)
    worker.time += 1
    await until(lambda: worker.cut == [(("alice", key.id), "key_expired")])
    await worker.cache.aclose()


async def test_the_last_use_is_written_once_a_minute(worker: Worker) -> None:
    """The last use is written soon the first time, and then at most once a minute."""
    _, secret = await made(worker.database)
    moments = []
    for seconds in (0, 1, 58, 2, 10, 60):
        worker.time += seconds
        await worker.find(secret) if not worker.known(secret) else None
        await worker.cache.note_uses()
        async with worker.database.reading() as connection:
            (key,) = (await client_keys.read_page(connection)).items
        assert key.last_used_at is not None
        moments.append(round(key.last_used_at.timestamp() - worker.begun.timestamp()))
    assert moments == [0, 0, 0, 61, 61, 131]


async def test_uses_that_could_not_be_written_go_with_the_next(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uses that could not be written in an outage are written with the next."""
    _, secret = await made(worker.database)
    assert await worker.find(secret)

    async def away(*_: object) -> None:
        raise OSError

    with monkeypatch.context() as patch:
        patch.setattr(key_cache, "note_uses", away)
        with pytest.raises(OSError, match=r"^$"):
            await worker.cache.note_uses()
    await worker.cache.note_uses()
    async with worker.database.reading() as connection:
        (key,) = (await client_keys.read_page(connection)).items
    assert key.last_used_at is not None


async def test_what_is_held_is_bounded(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys beyond the bound are looked up again; running requests of a dropped key are cut off at its expiry."""
    monkeypatch.setattr(key_cache, "MOST_KEYS", 2)
    monkeypatch.setattr(key_cache, "MOST_UNKNOWN", 2)
    keys = [
        await made(worker.database, initiator_id=name, expires_at=worker.begun + timedelta(seconds=100))
        for name in ("a", "b", "c")
    ]
    for _, secret in keys:
        assert await worker.find(secret)
        assert await worker.find(new_key()) is None
    assert worker.known(keys[0][1]) is None
    assert worker.look_ups == 6
    worker.time += 100
    worker.known(keys[2][1])
    assert {key for (key, _), _ in worker.cut} == {"a", "b", "c"}


async def test_the_database_is_away(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an outage cached keys work, and others get an error that does not blame the key; the next look-up works."""
    _, secret = await made(worker.database)
    _, other = await made(worker.database)
    assert await worker.find(secret)

    async def away(*_: object) -> None:
        raise OSError

    with monkeypatch.context() as patch:
        patch.setattr(key_cache, "find", away)
        assert worker.known(secret)
        with pytest.raises(RecorderUnavailable):
            await worker.find(other)
    assert await worker.find(other)


async def test_a_key_that_was_made_is_told_whatever_comes_after(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key is shown even if the database goes away after the commit, because it cannot be shown again."""

    async def away(*_: object) -> None:
        raise OSError

    keys = ManagedKeys(worker.database, worker.cache)
    monkeypatch.setattr(key_cache, "changes_since", away)
    key, secret = await keys.create(KeyRequest(initiator_id="alice"), "root")
    assert await worker.find(secret) == Principal("alice", key.id)
    revoked = await keys.revoke(key.id, "root")
    assert revoked is not None
    assert worker.known(secret) is not None
    monkeypatch.undo()
    await worker.cache.catch_up()
    assert worker.known(secret) is None
