"""The memory that workers share: bounded, and readable by its owner only."""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from fastapi_aibridge.cluster import redis_memory
from fastapi_aibridge.cluster.cipher import Cipher
from fastapi_aibridge.cluster.redis import SharedRedis
from fastapi_aibridge.cluster.redis_memory import RedisMemory
from fastapi_aibridge.cluster.shared_state import forget_initiator

from .valkey import ValkeyServer

pytestmark = pytest.mark.anyio

CIPHER = Cipher([SecretStr(base64.urlsafe_b64encode(os.urandom(32)).decode())])
ALICE = ("alice", "", "openai")
BOB = ("bob", "", "openai")


@pytest.fixture
async def shared(valkey: ValkeyServer) -> AsyncIterator[SharedRedis]:
    async with SharedRedis(valkey.url) as redis:
        yield redis


async def test_one_thing_under_several_ids(shared: SharedRedis) -> None:
    """A value with several ids is returned once with all requested ids, and to its owner only."""
    memory = RedisMemory(shared, CIPHER)
    await memory.put(ALICE, ["a", "b"], b"first")
    await memory.put(ALICE, ["c"], b"second")
    assert await memory.get(ALICE, ["x", "b", "c", "a"]) == [(b"first", ["b", "a"]), (b"second", ["c"])]
    assert await memory.get(BOB, ["a"]) == []
    assert await memory.get(("alice", "other key", "openai"), ["a"]) == []


async def test_what_is_put_in_the_wrong_place_is_not_read(shared: SharedRedis) -> None:
    """A value that was moved to another principal's key is not read."""
    memory = RedisMemory(shared, CIPHER)
    await memory.put(BOB, ["a"], b"Bob's")
    await memory.put(ALICE, ["a"], b"Alice's")

    async def swap(redis: Redis) -> None:
        begins = [shared.key(redis_memory.memory_of(who)).encode() for who in ("bob", "alice")]
        keys: list[Any] = await redis.keys("*kept")
        bobs, alices = [next(key for key in keys if key.startswith(begin)) for begin in begins]
        await redis.rename(bobs, alices)

    await shared.call(swap)
    assert await memory.get(ALICE, ["a"]) == []


async def test_size_is_bounded(shared: SharedRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest values are dropped first; a value that is too large is not stored."""
    monkeypatch.setattr(redis_memory, "OWNER_SIZE", 20_000)
    monkeypatch.setattr(redis_memory, "MAX_SIZE", 20_000)
    memory = RedisMemory(shared, CIPHER)
    for number in range(20):
        await memory.put(ALICE, [f"id-{number}", "latest"], bytes(1000) + bytes([number]))
    found = await memory.get(ALICE, [f"id-{number}" for number in range(20)])
    kept = [ids[0] for _, ids in found]
    assert 5 < len(kept) < 20
    assert kept == [f"id-{number}" for number in range(20 - len(kept), 20)]
    assert (await memory.get(ALICE, ["latest"]))[0][0][-1] == 19
    keys = await shared.call(lambda redis: redis.keys("*kept"))
    assert await shared.call(lambda redis: redis.hlen(keys[0])) == 2 * len(kept) + 2
    await memory.put(ALICE, ["huge"], bytes(20_000))
    assert await memory.get(ALICE, ["huge"]) == []


async def test_erase(shared: SharedRedis) -> None:
    memory = RedisMemory(shared, CIPHER)
    await memory.put(ALICE, ["a"], b"Alice's")
    await memory.put(("alice", "key", "anthropic"), ["a"], b"Alice's")
    await memory.put(BOB, ["a"], b"Bob's")
    await forget_initiator(shared, "alice")
    assert await memory.get(ALICE, ["a"]) == await memory.get(("alice", "key", "anthropic"), ["a"]) == []
    assert await memory.get(BOB, ["a"]) == [(b"Bob's", ["a"])]
