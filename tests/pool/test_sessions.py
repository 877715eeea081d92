"""Principals of one key with different session keys and different metadata."""

import asyncio

import pytest
from pydantic import SecretStr

from fastapi_aibridge.pool.pool import CachedBridgePool
from fastapi_aibridge.principal import Principal

from .bridges import Bridges, FakeBridge, finish, slow
from .clock import ManualClock, settled

pytestmark = pytest.mark.anyio

Pool = CachedBridgePool[FakeBridge, str]


def alice(session: str | SecretStr | None, **metadata: str) -> Principal:
    return Principal("alice", "key-1", session, metadata)


@pytest.fixture
def pool(bridges: Bridges) -> Pool:
    return CachedBridgePool(bridges, ["one"], ttl=100.0, drain_timeout=60.0, clock=ManualClock())


async def touch(pool: Pool, principal: Principal) -> FakeBridge:
    async with pool.acquire(principal) as bridge:
        return bridge


@pytest.mark.parametrize("pair", [("s-1", "s-2"), (None, "s-1"), ("s-1", None), ("s-1", SecretStr("s-2"))])
async def test_new_session_key_new_bridge(pool: Pool, bridges: Bridges, pair: tuple[str | None, str | None]) -> None:
    """A new session key replaces the cached bridge; holders of the old one may finish with it."""
    old, new = alice(pair[0]), alice(pair[1])
    async with pool.acquire(old) as first:
        second = await touch(pool, new)
        assert first is not second
        assert second.principal.session == new.session
        assert await touch(pool, new) is second
        await settled()
        assert bridges.closes == [0, 0]
        assert bridges.built[0].retires == 1
    await settled()
    assert bridges.closes == [1, 0]
    metrics = pool.metrics()
    assert (metrics.size, metrics.draining, metrics.evictions["session"], metrics.hits) == (1, 0, 1, 1)


async def test_the_same_secret_in_both_forms(pool: Pool, bridges: Bridges) -> None:
    """A session key is the same as text and as `SecretStr`, and other metadata does not need a new bridge."""
    for principal in (alice("s-1"), alice(SecretStr("s-1"), shift="night"), alice("s-1", shift="day")):
        await touch(pool, principal)
    assert len(bridges.built) == 1


async def test_side_by_side(pool: Pool, bridges: Bridges) -> None:
    """Concurrent requests with two session keys cause one build each and get their own bridge."""
    bridges.prepare = slow
    principals = [alice("s-1"), alice("s-2")] * 20
    users = [asyncio.create_task(touch(pool, principal)) for principal in principals]
    await settled()
    assert len(bridges.built) == 2
    assert pool.metrics().builds_in_flight == 2
    finish(bridges.built[1])
    await settled()
    finish(bridges.built[0])
    for user, principal in zip(users, principals, strict=True):
        assert (await user).principal.session == principal.session
    await settled()
    # The later requested one stays, in whichever order the two become ready.
    assert bridges.closes == [1, 0]
    assert pool.metrics().size == 1
    assert await touch(pool, alice("s-2")) is bridges.built[1]


async def test_taking_turns(pool: Pool, bridges: Bridges) -> None:
    """Alternating session keys cost a build each time and leave nothing behind."""
    for _ in range(5):
        for session in ("s-1", "s-2"):
            assert (await touch(pool, alice(session))).principal.session == SecretStr(session)
    await settled()
    assert bridges.closes == [1] * 9 + [0]
    await pool.shutdown()
    assert bridges.closes == [1] * 10


async def test_a_build_that_fails_leaves_the_old_bridge(pool: Pool, bridges: Bridges) -> None:
    """A bridge replaces another only once it has started."""
    first = await touch(pool, alice("s-1"))
    bridges.prepare = slow
    user = asyncio.create_task(touch(pool, alice("s-2")))
    await settled()
    finish(bridges.last, OSError("no"))
    with pytest.raises(OSError, match="no"):
        await user
    assert await touch(pool, alice("s-1")) is first
    await settled()
    assert bridges.closes == [0, 1]


async def test_no_secret_in_sight(pool: Pool) -> None:
    """The pool's state does not show a session key."""
    await touch(pool, alice("hunter2"))
    slot = pool._cache[("alice", "key-1")]
    assert "hunter2" not in repr((slot.build_key, slot.principal, pool._builds))
