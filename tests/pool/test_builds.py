"""Builds that hang, fail in unusual ways, wait for each other, or have too many waiters."""

import asyncio
import gc
import logging

import pytest

from fastapi_aibridge.errors import BuildTimeout, ConfigurationError, PoolShutdown
from fastapi_aibridge.pool.pool import CLOSE_TIMEOUT, CachedBridgePool
from fastapi_aibridge.principal import Principal

from .bridges import Bridges, FakeBridge, finish, slow
from .clock import ManualClock, settled

pytestmark = pytest.mark.anyio

Pool = CachedBridgePool[FakeBridge, str]
ALICE, BOB, CAROL = Principal("alice"), Principal("bob"), Principal("carol")
BUILD_TIMEOUT = 20.0


class Room:
    """A waiting room with a limited number of places."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.inside: list[str] = []

    async def enter(self, initiator: str) -> None:
        if len(self.inside) >= self.places:
            raise OverflowError
        self.inside.append(initiator)

    def leave(self, initiator: str) -> None:
        self.inside.remove(initiator)


@pytest.fixture
def builds() -> list[tuple[float, str]]:
    return []


@pytest.fixture
def pool(bridges: Bridges, clock: ManualClock, builds: list[tuple[float, str]]) -> Pool:
    return CachedBridgePool(
        bridges,
        ["one"],
        ttl=100.0,
        drain_timeout=60.0,
        build_timeout=BUILD_TIMEOUT,
        clock=clock,
        built=lambda seconds, outcome: builds.append((seconds, outcome)),
    )


async def touch(pool: Pool, principal: Principal = ALICE) -> FakeBridge:
    async with pool.acquire(principal) as bridge:
        return bridge


async def test_a_build_that_hangs_is_given_up(pool: Pool, bridges: Bridges, clock: ManualClock, builds: object) -> None:
    """After the timeout all waiters get an error, the bridge is closed, and the next acquire starts a new build."""
    bridges.prepare = slow
    users = [asyncio.create_task(touch(pool)) for _ in range(3)]
    await settled()
    clock.advance(BUILD_TIMEOUT - 0.1)
    await settled()
    assert not any(user.done() for user in users)
    clock.advance(0.1)
    await settled()
    for user in users:
        with pytest.raises(BuildTimeout, match="not ready within 20 s"):
            await user
    assert bridges.closes == [1]
    assert (pool.metrics().leases, pool.metrics().draining, pool.metrics().builds_in_flight) == (0, 0, 0)
    bridges.prepare = lambda _: None
    assert await touch(pool) is bridges.built[1]
    assert builds == [(20.0, "timeout"), (0.0, "ok")]


async def test_a_hanging_build_that_ignores_its_end(pool: Pool, bridges: Bridges, clock: ManualClock) -> None:
    """A hanging build that ignores its cancellation blocks no other build, is closed later, and is never cached."""
    bridges.prepare = slow
    user = asyncio.create_task(touch(pool))
    await settled()
    stuck = bridges.last.hang_when_cancelled = asyncio.get_running_loop().create_future()
    clock.advance(BUILD_TIMEOUT)
    await settled()
    with pytest.raises(BuildTimeout):
        await user
    bridges.prepare = lambda _: None
    second = await touch(pool)
    clock.advance(CLOSE_TIMEOUT)
    await settled()
    assert bridges.closes == [1, 0]
    stuck.set_result(None)
    await settled()
    assert await touch(pool) is second
    assert bridges.closes == [1, 0]


async def test_durations_of_builds_are_told(pool: Pool, bridges: Bridges, clock: ManualClock, builds: object) -> None:
    """The duration and the outcome of each build are reported once."""
    bridges.prepare = slow
    for principal, seconds, how in ((ALICE, 3.0, "ok"), (BOB, 4.0, "failed"), (CAROL, 5.0, "degraded")):
        user = asyncio.create_task(touch(pool, principal))
        await settled()
        clock.advance(seconds)
        bridges.last.degraded = how == "degraded"
        finish(bridges.last, OSError() if how == "failed" else None)
        await asyncio.wait((user,))
        user.exception()
    waiting = asyncio.create_task(touch(pool, Principal("dave")))
    await settled()
    await pool.shutdown()
    with pytest.raises(PoolShutdown):
        await waiting
    assert builds == [(3.0, "ok"), (4.0, "failed"), (5.0, "degraded"), (0.0, "shutdown")]


@pytest.mark.parametrize("where", ["start", "degraded", "aclose"])
async def test_what_raises_at_once(pool: Pool, bridges: Bridges, where: str, caplog: pytest.LogCaptureFixture) -> None:
    """A bridge whose methods raise before they return an awaitable leaves nothing behind."""

    class Odd(FakeBridge):
        def start(self) -> object:  # type: ignore[override]
            if where == "start":
                raise OSError("at once")
            return super().start()

        @property
        def degraded(self) -> bool:
            if where == "degraded":
                raise OSError("at once")
            return False

        @degraded.setter
        def degraded(self, value: bool) -> None: ...

        def aclose(self) -> object:  # type: ignore[override]
            closing = super().aclose()
            if where == "aclose":
                closing.close()
                raise OSError("at once")
            return closing

    built: list[Odd] = []

    def factory(principal: Principal, providers: tuple[str, ...]) -> Odd:
        built.append(Odd(principal, providers))
        return built[-1]

    odd: CachedBridgePool[FakeBridge, str] = CachedBridgePool(factory, clock=ManualClock())  # type: ignore[arg-type]
    if where == "aclose":
        await touch(odd)
    else:
        with pytest.raises(OSError, match="at once"):
            await touch(odd)
        await settled()
        assert [one.closes for one in built] == [1]
    await odd.shutdown()
    metrics = odd.metrics()
    assert (metrics.size, metrics.leases, metrics.draining, metrics.builds_in_flight) == (0, 0, 0, 0)


async def test_a_ttl_below_the_clocks_resolution(bridges: Bridges, clock: ManualClock) -> None:
    """A bridge that has expired as soon as it is ready serves its waiters and is closed."""
    pool: Pool = CachedBridgePool(bridges, ttl=1e-300, clock=clock)
    for _ in range(3):
        async with pool.acquire(ALICE) as bridge:
            assert not bridge.closed
    await settled()
    assert bridges.closes == [1, 1, 1]
    metrics = pool.metrics()
    assert (metrics.size, metrics.draining, metrics.evictions["expired"]) == (0, 0, 3)
    assert clock.pending == []


async def test_a_build_that_fails_while_the_pool_ends(
    pool: Pool, bridges: Bridges, caplog: pytest.LogCaptureFixture
) -> None:
    """The event loop does not log the error of a build that fails during shutdown, whose text could hold secrets."""

    class Failing(FakeBridge):
        async def start(self) -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise OSError("https://user:hunter2@mcp.example") from None

    odd: CachedBridgePool[FakeBridge, str] = CachedBridgePool(Failing, clock=ManualClock())
    user = asyncio.create_task(touch(odd))
    await settled()
    await odd.shutdown()
    with pytest.raises(PoolShutdown):
        await user
    del user
    await settled()
    gc.collect()
    assert "hunter2" not in caplog.text
    assert [one.levelno for one in caplog.records if one.levelno >= logging.WARNING] == []


# Builds that wait for builds


async def test_a_build_that_acquires_its_own_bridge(pool: Pool, bridges: Bridges) -> None:
    """A build that acquires its own bridge gets an error at once, and so do its waiters."""

    class Selfish(FakeBridge):
        async def start(self) -> None:
            await asyncio.create_task(touch(odd, self.principal))

    odd: CachedBridgePool[FakeBridge, str] = CachedBridgePool(Selfish, clock=ManualClock())
    with pytest.raises(ConfigurationError, match="acquired while it is being built"):
        await touch(odd)
    assert (odd.metrics().leases, odd.metrics().builds_in_flight) == (0, 0)


async def test_a_circle_of_builds(pool: Pool) -> None:
    """Builds that wait for each other in a circle of any length get an error."""
    after = {"alice": BOB, "bob": CAROL, "carol": ALICE}

    class Next(FakeBridge):
        async def start(self) -> None:
            await touch(circle, after[self.principal.initiator_id])

    circle: CachedBridgePool[FakeBridge, str] = CachedBridgePool(Next, clock=ManualClock())
    for first in (ALICE, BOB):
        with pytest.raises(ConfigurationError, match="acquired while it is being built"):
            await touch(circle, first)
    assert (circle.metrics().leases, circle.metrics().builds_in_flight) == (0, 0)


async def test_a_build_may_acquire_another_bridge() -> None:
    """A build may acquire other bridges, even twice or concurrently, and its own later from a task."""
    tasks: list[asyncio.Task[FakeBridge]] = []
    pools: list[Pool] = []
    go_on = asyncio.Event()

    async def later() -> FakeBridge:
        await go_on.wait()
        return await touch(pools[0], ALICE)

    class Needing(FakeBridge):
        async def start(self) -> None:
            if self.principal is ALICE:
                await asyncio.gather(touch(pools[0], BOB), touch(pools[0], BOB), touch(pools[0], CAROL))
                tasks.append(asyncio.create_task(later()))

    pools.append(CachedBridgePool(Needing, clock=ManualClock()))
    bridge = await touch(pools[0], ALICE)
    pools[0].replace_providers(["two"])
    go_on.set()
    assert await tasks[0] is not bridge
    assert pools[0].metrics().leases == 0


# Waiters


async def test_who_waits_is_counted(bridges: Bridges, clock: ManualClock) -> None:
    """The number of waiters for builds is limited; hits need no place, and every place is given back."""
    room = Room(2)
    pool: Pool = CachedBridgePool(bridges, clock=clock, waiting_room=room)
    await touch(pool, BOB)
    bridges.prepare = slow
    users = [asyncio.create_task(touch(pool)) for _ in range(2)]
    await settled()
    assert room.inside == ["alice", "alice"]
    with pytest.raises(OverflowError):
        await touch(pool)
    assert not (await touch(pool, BOB)).closed
    users[0].cancel()
    await settled()
    assert room.inside == ["alice"]
    finish(bridges.last, OSError())
    await settled()
    assert room.inside == []
    assert isinstance(users[1].exception(), OSError)
    assert pool.metrics().leases == 0


async def test_a_bridge_that_came_while_there_was_no_room(bridges: Bridges, clock: ManualClock) -> None:
    """A caller that waits for a place takes the bridge that was built meanwhile."""

    class Slow(Room):
        go_on = asyncio.Event()

        async def enter(self, initiator: str) -> None:
            if len(self.inside) >= self.places:
                await self.go_on.wait()
            self.inside.append(initiator)

    pool: Pool = CachedBridgePool(bridges, clock=clock, waiting_room=Slow(1))
    bridges.prepare = slow
    users = [asyncio.create_task(touch(pool)) for _ in range(2)]
    await settled()
    finish(bridges.last)
    await settled()
    Slow.go_on.set()
    assert await users[0] is await users[1]
    assert len(bridges.built) == 1
