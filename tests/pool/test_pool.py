import asyncio
import contextvars
import gc
import logging

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from fastapi_aibridge.errors import PoolShutdown
from fastapi_aibridge.pool.background import Clock
from fastapi_aibridge.pool.pool import CLOSE_TIMEOUT, CachedBridgePool
from fastapi_aibridge.principal import Principal

from .bridges import Bridges, FakeBridge, finish, slow
from .clock import ManualClock, settled

pytestmark = pytest.mark.anyio

Pool = CachedBridgePool[FakeBridge, str]

ALICE = Principal("alice", "key-1")
BOB = Principal("bob", "key-2")
CAROL = Principal("carol")


@pytest.fixture
def pool(bridges: Bridges, clock: ManualClock) -> Pool:
    return make_pool(bridges, clock)


def make_pool(bridges: Bridges, clock: Clock | None, *, max_items: int = 10) -> Pool:
    return CachedBridgePool(
        bridges, ["old"], max_items=max_items, ttl=100.0, drain_timeout=60.0, degraded_ttl=30.0, clock=clock
    )


async def touch(pool: Pool, principal: Principal = ALICE) -> FakeBridge:
    async with pool.acquire(principal) as bridge:
        return bridge


class User:
    """A task that holds a lease until it is told to leave."""

    def __init__(self, pool: Pool, principal: Principal = ALICE) -> None:
        self.bridge: FakeBridge | None = None
        self._leave = asyncio.Event()
        self.task = asyncio.create_task(self._use(pool, principal))

    async def _use(self, pool: Pool, principal: Principal) -> FakeBridge:
        async with pool.acquire(principal) as bridge:
            self.bridge = bridge
            await self._leave.wait()
            return bridge

    async def leave(self) -> FakeBridge:
        self._leave.set()
        bridge = await self.task
        await settled()
        return bridge


async def arrive(pool: Pool, principal: Principal = ALICE, *, many: int = 1) -> list[User]:
    users = [User(pool, principal) for _ in range(many)]
    await settled()
    return users


# One bridge for each key


async def test_same_key_same_bridge(pool: Pool, bridges: Bridges) -> None:
    """Consecutive and concurrent acquires of one principal get the same bridge."""
    first = await touch(pool)
    async with pool.acquire(ALICE) as second, pool.acquire(ALICE) as third:
        assert first is second is third
    assert len(bridges.built) == 1


async def test_two_keys_of_one_user(pool: Pool) -> None:
    """Two API keys of one initiator never share a bridge, even if both are being built."""
    one, two = await asyncio.gather(touch(pool), touch(pool, Principal("alice", "key-9")))
    assert one is not two


async def test_key_is_a_tuple(pool: Pool) -> None:
    """Keys whose parts would join to the same string are distinct."""
    assert await touch(pool, Principal("a|b", "")) is not await touch(pool, Principal("a", "b"))


async def test_factory_gets_principal_and_providers(pool: Pool) -> None:
    """The factory gets the principal and the snapshot of the providers."""
    bridge = await touch(pool)
    assert (bridge.principal, bridge.providers) == (ALICE, ("old",))


# Single flight


async def test_one_build_for_all_who_wait(pool: Pool, bridges: Bridges) -> None:
    """Concurrent acquires share one build and its bridge."""
    bridges.prepare = slow
    users = await arrive(pool, many=50)
    finish(bridges.last)
    await settled()
    assert len(bridges.built) == 1
    assert {user.bridge for user in users} == {bridges.last}
    for user in users:
        await user.leave()
    assert bridges.closes == [0]


async def test_first_caller_cancelled(pool: Pool, bridges: Bridges) -> None:
    """A build continues if its first caller is cancelled, and the other callers get its bridge."""
    bridges.prepare = slow
    first, second = await arrive(pool, many=2)
    first.task.cancel()
    await settled()
    assert first.task.cancelled()
    finish(bridges.last)
    assert await second.leave() is bridges.last


async def test_nobody_left_waiting(pool: Pool, bridges: Bridges) -> None:
    """A build without waiters still ends in the cache."""
    bridges.prepare = slow
    (user,) = await arrive(pool)
    user.task.cancel()
    await settled()
    finish(bridges.last)
    await settled()
    assert await touch(pool) is bridges.last
    assert bridges.closes == [0]


@pytest.mark.parametrize("turns", range(6))
async def test_waiter_cancelled_as_the_build_completes(pool: Pool, bridges: Bridges, turns: int) -> None:
    """A waiter that is cancelled around its build's end leaves no lease behind."""
    bridges.prepare = slow
    (user,) = await arrive(pool)
    finish(bridges.last)
    await settled(turns)
    user.task.cancel()
    await settled()
    assert user.task.cancelled()
    assert pool.metrics().leases == 0
    assert pool.replace_providers(["new"]) == 1
    await settled()
    assert bridges.closes == [1]


@pytest.mark.parametrize("turns", range(6))
async def test_evicted_before_the_waiter_wakes(bridges: Bridges, clock: ManualClock, turns: int) -> None:
    """A bridge that is evicted between its build's end and a waiter's wake-up stays open for that waiter."""
    pool = make_pool(bridges, clock, max_items=1)
    await touch(pool, BOB)
    bridges.prepare = slow
    (user,) = await arrive(pool)
    bridge = bridges.last
    finish(bridge)
    await settled(turns)
    pool.replace_providers(["new"])
    await settled()
    assert user.bridge is bridge
    assert not bridge.closed
    await user.leave()
    assert bridge.closes == 1


async def test_failing_start(pool: Pool, bridges: Bridges) -> None:
    """A failed start is raised to each waiter, closed once and not cached; the next acquire tries again."""
    bridges.prepare = slow
    users = await arrive(pool, many=3)
    finish(bridges.last, OSError("no route"))
    await settled()
    for user in users:
        with pytest.raises(OSError, match="no route"):
            await user.task
    assert bridges.closes == [1]
    metrics = pool.metrics()
    assert (metrics.size, metrics.keys_added, metrics.leases, metrics.draining) == (0, 0, 0, 0)

    bridges.prepare = lambda _: None
    assert not (await touch(pool)).closed
    assert len(bridges.built) == 2


async def test_failing_start_unseen(pool: Pool, bridges: Bridges, caplog: pytest.LogCaptureFixture) -> None:
    """A start that fails without waiters closes its bridge and logs nothing."""
    bridges.prepare = slow
    (user,) = await arrive(pool)
    user.task.cancel()
    await settled()
    del user
    finish(bridges.last, OSError())
    await settled()
    gc.collect()
    assert bridges.closes == [1]
    assert caplog.records == []


async def test_start_cancelled_from_within(pool: Pool, bridges: Bridges) -> None:
    """A start that is cancelled from within is an error for its waiters, not their own cancellation."""
    bridges.prepare = slow
    (user,) = await arrive(pool)
    started = bridges.last.started
    assert started is not None
    started.cancel()
    with pytest.raises(RuntimeError, match="cancelled while it started"):
        await user.task
    await settled()
    assert bridges.closes == [1]


async def test_failing_factory(pool: Pool, bridges: Bridges) -> None:
    """A factory's error is raised to the caller, and the next acquire tries again."""

    def fail(_: FakeBridge) -> None:
        raise ValueError("no such model")

    bridges.prepare = fail
    with pytest.raises(ValueError, match="no such model"):
        await touch(pool)
    assert pool.metrics().builds_in_flight == 0
    bridges.prepare = lambda _: None
    await touch(pool)


async def test_build_does_not_see_the_caller(pool: Pool, bridges: Bridges) -> None:
    """A bridge is built without the context variables of its first request, because it outlives the request."""
    request = contextvars.ContextVar("request", default="none")
    seen = []

    def look(bridge: FakeBridge) -> None:
        seen.append(request.get())
        bridge.on_start = lambda: seen.append(request.get())

    bridges.prepare = look
    request.set("alice's")
    await touch(pool)
    assert seen == ["none", "none"]


# Leases


async def test_eviction_spares_the_leased(bridges: Bridges, clock: ManualClock) -> None:
    """Capacity evicts the least recently acquired bridge, which is closed when its last lease is released."""
    pool = make_pool(bridges, clock, max_items=2)
    alice, alice_too = await arrive(pool, ALICE, many=2)
    await touch(pool, BOB)
    await touch(pool, CAROL)
    assert pool.metrics().size == 2
    assert bridges.closes == [0, 0, 0]
    assert pool.metrics().draining == 1
    await alice.leave()
    assert bridges.closes == [0, 0, 0]
    await alice_too.leave()
    assert bridges.closes == [1, 0, 0]
    assert pool.metrics().draining == 0


async def test_lru(bridges: Bridges, clock: ManualClock) -> None:
    """A hit makes a bridge the most recently used one."""
    pool = make_pool(bridges, clock, max_items=2)
    for principal in (ALICE, BOB, ALICE, CAROL):
        await touch(pool, principal)
    await settled()
    assert bridges.closes == [0, 1, 0]


async def test_timers_do_not_disturb_lru(bridges: Bridges, clock: ManualClock) -> None:
    """The look for the next expiry does not count as a use of a bridge."""
    pool = make_pool(bridges, clock, max_items=3)
    for principal in (ALICE, BOB, CAROL, Principal("dave")):
        await touch(pool, principal)
    await touch(pool, Principal("eve"))
    await settled()
    assert bridges.closes == [1, 1, 0, 0, 0]


async def test_retired_bridge_takes_no_new_leases(pool: Pool, bridges: Bridges) -> None:
    """After a retirement new acquires get another bridge, even while the retired one is in use."""
    (user,) = await arrive(pool)
    pool.replace_providers(["new"])
    assert await touch(pool) is not user.bridge
    assert await user.leave() is bridges.built[0]
    assert bridges.closes == [1, 0]


async def test_release_is_idempotent(pool: Pool, bridges: Bridges) -> None:
    """Releasing a lease twice counts once."""
    (other,) = await arrive(pool)
    lease = pool.acquire(ALICE)
    async with lease:
        with pytest.raises(RuntimeError, match="held already"):
            await lease.__aenter__()
        lease.release()
        lease.release()
    lease.release()
    assert pool.metrics().leases == 1
    pool.replace_providers([])
    await settled()
    assert bridges.closes == [0]
    await other.leave()
    assert bridges.closes == [1]


async def test_error_in_the_body(pool: Pool) -> None:
    """An error in the body of the lease propagates, and the lease is released."""
    with pytest.raises(ZeroDivisionError):
        async with pool.acquire(ALICE):
            _ = 1 / 0
    assert pool.metrics().leases == 0


async def test_drain_timeout_and_late_release(pool: Pool, bridges: Bridges, clock: ManualClock) -> None:
    """A retired bridge is closed after `drain_timeout` even if it is leased; a later release does nothing."""
    (user,) = await arrive(pool)
    pool.replace_providers([])
    clock.advance(59.9)
    await settled()
    assert bridges.closes == [0]
    clock.advance(0.1)
    await settled()
    assert bridges.closes == [1]
    await user.leave()
    assert bridges.closes == [1]
    assert pool.metrics().leases == 0
    assert clock.pending == []


async def test_failing_close(pool: Pool, bridges: Bridges, caplog: pytest.LogCaptureFixture) -> None:
    """An error on close is logged without its text, which may hold secrets, and affects nobody."""
    (await touch(pool)).close_error = OSError("https://user:hunter2@mcp.example")
    pool.replace_providers([])
    await settled()
    assert [(r.name, r.levelno) for r in caplog.records] == [("fastapi_aibridge.pool", logging.WARNING)]
    assert "OSError" in caplog.text
    assert "hunter2" not in caplog.text
    assert (bridges.closes, pool.metrics().draining) == ([1], 0)


async def test_hanging_close(pool: Pool, clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    """A close that takes too long is cancelled."""
    slow_close = (await touch(pool)).closing = asyncio.get_running_loop().create_future()
    pool.replace_providers([])
    await settled()
    assert pool.metrics().draining == 1
    clock.advance(CLOSE_TIMEOUT)
    await settled()
    assert slow_close.cancelled()
    assert pool.metrics().draining == 0
    assert "did not close" in caplog.text


# Time


async def test_ttl_counts_from_creation(pool: Pool, bridges: Bridges, clock: ManualClock) -> None:
    """Use does not extend a bridge's life."""
    for _ in range(9):
        await touch(pool)
        clock.advance(10)
    assert await touch(pool) is bridges.built[0]
    clock.advance(10)
    assert await touch(pool) is bridges.built[1]
    assert bridges.closes == [1, 0]


async def test_expired_without_traffic(pool: Pool, bridges: Bridges, clock: ManualClock) -> None:
    """Each bridge is retired at its own time by a single timer, without any request."""
    for principal in (ALICE, BOB, CAROL):
        await touch(pool, principal)
        clock.advance(10)
    assert clock.pending == [1100]
    clock.advance(69)
    await settled()
    assert bridges.closes == [0, 0, 0]
    clock.advance(1)
    for expected in ([1, 0, 0], [1, 1, 0], [1, 1, 1]):
        await settled()
        assert bridges.closes == expected
        assert len(clock.pending) == (sum(expected) < 3)
        clock.advance(10)
    assert pool.metrics().evictions["expired"] == 3


async def test_expired_while_leased(pool: Pool, bridges: Bridges, clock: ManualClock) -> None:
    """Expiry retires a leased bridge, which is closed when its lease is released."""
    (user,) = await arrive(pool)
    clock.advance(100)
    await settled()
    assert (bridges.closes, pool.metrics().size, pool.metrics().draining) == ([0], 0, 1)
    await user.leave()
    assert bridges.closes == [1]
    assert clock.pending == []


async def test_degraded_bridge_lives_shortly(pool: Pool, bridges: Bridges, clock: ManualClock) -> None:
    """A degraded bridge works and is replaced soon, before older sound ones."""
    sound = await touch(pool, BOB)

    def degrade(bridge: FakeBridge) -> None:
        bridge.degraded = True

    bridges.prepare = degrade
    assert (await touch(pool)).degraded
    clock.advance(29.9)
    await settled()
    assert bridges.closes == [0, 0]
    clock.advance(0.1)
    await settled()
    assert bridges.closes == [0, 1]
    assert await touch(pool, BOB) is sound


async def test_what_has_left_is_not_remembered(bridges: Bridges, clock: ManualClock) -> None:
    """The list of due times is bounded by the number of cached bridges, not by the number of principals."""
    pool = make_pool(bridges, clock, max_items=2)
    for number in range(200):
        await touch(pool, Principal(str(number)))
    assert len(pool._cache._due) <= 2 * 2 + 17
    await pool.shutdown()


async def test_late_timer(pool: Pool, bridges: Bridges, clock: ManualClock) -> None:
    """If the timer is late, an expired bridge is neither handed out nor forgotten."""
    await touch(pool)
    clock.now += 100
    await touch(pool)
    await settled()
    assert bridges.closes == [1, 0]
    assert pool.metrics().keys_evicted == 1


async def test_late_timer_and_reload(pool: Pool, bridges: Bridges, clock: ManualClock) -> None:
    """A bridge whose expiry was not noticed before a reload is closed with the others and counted as expired."""
    await touch(pool)
    clock.now += 50
    await touch(pool, BOB)
    clock.now += 50
    assert pool.replace_providers([]) == 1
    await settled()
    assert bridges.closes == [1, 1]
    assert pool.metrics().evictions == {
        "capacity": 0, "expired": 1, "reloaded": 1, "revoked": 0, "session": 0, "shutdown": 0
    }  # fmt: skip


async def test_early_timer(pool: Pool, bridges: Bridges, clock: ManualClock) -> None:
    """A timer that fires slightly early is set again."""
    await touch(pool)
    clock.advance(99.9)
    clock.fire_early()
    await settled()
    assert (bridges.closes, clock.pending) == ([0], [1100])
    clock.advance(0.1)
    await settled()
    assert bridges.closes == [1]


async def test_default_clock_is_the_loop(bridges: Bridges) -> None:
    """Without a clock the pool uses the running loop, which is itself a valid clock."""
    for clock in (None, asyncio.get_running_loop()):
        pool: Pool = CachedBridgePool(bridges, ttl=0.001, clock=clock)
        await (await touch(pool)).gone.wait()
        await pool.shutdown()
    assert bridges.closes == [1, 1]


# Reload


async def test_replace_providers(pool: Pool, bridges: Bridges) -> None:
    """A reload retires all cached bridges and returns their number; the next acquire sees the new providers."""
    await touch(pool)
    await touch(pool, BOB)
    assert pool.provider_version == 1
    assert pool.replace_providers(["new"]) == 2
    assert (pool.provider_version, pool.providers) == (2, ("new",))
    assert (await touch(pool)).providers == ("new",)
    await settled()
    assert bridges.closes == [1, 1, 0]
    assert pool.replace_providers([]) == 1


async def test_reload_during_a_build(pool: Pool, bridges: Bridges) -> None:
    """Waiters of an old build get its bridge, later acquires get a new one, and the old one is not cached."""
    bridges.prepare = slow
    (old_user,) = await arrive(pool)
    assert pool.replace_providers(["new"]) == 0
    (new_user,) = await arrive(pool)
    old, new = bridges.built
    assert pool.metrics().builds_in_flight == 2

    finish(new)
    finish(old)
    await settled()
    assert (old_user.bridge, new_user.bridge) == (old, new)
    assert (old.providers, new.providers) == (("old",), ("new",))
    assert await touch(pool) is new
    assert bridges.closes == [0, 0]
    await old_user.leave()
    assert bridges.closes == [1, 0]


async def test_reload_during_a_build_without_waiters(pool: Pool, bridges: Bridges) -> None:
    """An old build without waiters is closed as soon as it is done."""
    bridges.prepare = slow
    (user,) = await arrive(pool)
    user.task.cancel()
    pool.replace_providers(["new"])
    finish(bridges.last)
    await settled()
    assert bridges.closes == [1]
    assert pool.metrics().size == 0


# The end


async def test_shutdown_refuses_and_closes(pool: Pool, bridges: Bridges, clock: ManualClock) -> None:
    """After a shutdown all bridges are closed, there are no leases or timers, and reloads do nothing."""
    await touch(pool)
    await touch(pool, BOB)
    await pool.shutdown()
    assert bridges.closes == [1, 1]
    with pytest.raises(PoolShutdown, match="shutting down"):
        await touch(pool)
    assert pool.replace_providers(["new"]) == 0
    assert (pool.provider_version, pool.providers) == (1, ("old",))
    assert clock.pending == []


async def test_shutdown_waits_for_leases(pool: Pool, bridges: Bridges) -> None:
    """Within the grace running requests may finish, and new ones are refused; the shutdown ends with the last lease."""
    (user,) = await arrive(pool)
    ending = asyncio.create_task(pool.shutdown(grace=5))
    await settled()
    with pytest.raises(PoolShutdown):
        await touch(pool)
    assert not ending.done()
    assert bridges.closes == [0]
    await user.leave()
    assert ending.done()
    assert bridges.closes == [1]


async def test_shutdown_cuts_what_does_not_return(pool: Pool, bridges: Bridges, clock: ManualClock) -> None:
    """After the grace leased bridges are closed; later releases do nothing."""
    (user,) = await arrive(pool)
    ending = asyncio.create_task(pool.shutdown(grace=5))
    await settled()
    clock.advance(5)
    await settled()
    assert ending.done()
    assert bridges.closes == [1]
    await user.leave()
    assert bridges.closes == [1]
    assert pool.metrics().leases == 0


async def test_shutdown_is_idempotent(pool: Pool, bridges: Bridges) -> None:
    """All callers of shutdown wait for the same end, even if the first is cancelled."""
    (user,) = await arrive(pool)
    first, second = (asyncio.create_task(pool.shutdown(grace=5)) for _ in range(2))
    await settled()
    first.cancel()
    await settled()
    assert first.cancelled()
    assert not second.done()
    await user.leave()
    assert second.done()
    await pool.shutdown()
    assert bridges.closes == [1]


async def test_shutdown_during_a_build(pool: Pool, bridges: Bridges) -> None:
    """A running build is cancelled and its bridge closed; its waiters get the shutdown's error."""
    bridges.prepare = slow
    users = await arrive(pool, many=2)
    await pool.shutdown()
    for user in users:
        with pytest.raises(PoolShutdown):
            await user.task
    assert bridges.last.started is not None
    assert bridges.last.started.cancelled()
    assert bridges.closes == [1]


@pytest.mark.parametrize("turns", range(6))
async def test_shutdown_as_a_build_completes(pool: Pool, bridges: Bridges, turns: int) -> None:
    """A build that ends during the shutdown leaves no open bridge and no waiter."""
    bridges.prepare = slow
    (user,) = await arrive(pool)
    finish(bridges.last)
    await settled(turns)
    await pool.shutdown()
    await settled()
    assert bridges.closes == [1]
    if user.bridge is None:
        with pytest.raises(PoolShutdown):
            await user.task
    else:
        await user.leave()
    assert pool.metrics().leases == 0


async def test_shutdown_survives_what_hangs(pool: Pool, bridges: Bridges, clock: ManualClock) -> None:
    """A start that ignores its cancellation and a close that hangs delay the shutdown but do not prevent it."""
    (await touch(pool, BOB)).closing = asyncio.get_running_loop().create_future()
    bridges.prepare = slow
    (user,) = await arrive(pool)
    stuck = bridges.last.hang_when_cancelled = asyncio.get_running_loop().create_future()
    ending = asyncio.create_task(pool.shutdown())
    await settled()
    with pytest.raises(PoolShutdown):
        await user.task
    clock.advance(CLOSE_TIMEOUT)
    await settled()
    assert bridges.closes == [1, 1]
    clock.advance(2 * CLOSE_TIMEOUT)
    await settled()
    assert ending.done()
    stuck.set_result(None)
    await settled()
    assert bridges.closes == [1, 1]
    assert clock.pending == []


# Metrics and spans


async def test_metrics(bridges: Bridges, clock: ManualClock) -> None:
    """The metrics show the pool's content and its past events."""
    pool = make_pool(bridges, clock, max_items=1)
    bridges.prepare = slow
    users = await arrive(pool, many=2)
    building = pool.metrics()
    assert (building.hits, building.misses, building.builds_in_flight, building.leases) == (0, 2, 1, 2)
    bridges.prepare = lambda _: None
    finish(bridges.last)
    await settled()
    await touch(pool)
    await touch(pool, BOB)
    metrics = pool.metrics()
    assert (metrics.size, metrics.max_items, metrics.ttl_seconds) == (1, 1, 100.0)
    assert (metrics.hits, metrics.misses, metrics.keys_added, metrics.keys_evicted) == (1, 3, 2, 1)
    assert (metrics.builds_in_flight, metrics.leases, metrics.draining) == (0, 2, 1)
    assert metrics.provider_version == 1
    for user in users:
        await user.leave()
    clock.advance(100)
    await touch(pool)
    pool.replace_providers([])
    await touch(pool)
    await pool.shutdown()
    end = pool.metrics()
    assert end.evictions == {"capacity": 1, "expired": 1, "reloaded": 1, "revoked": 0, "session": 0, "shutdown": 1}
    assert (end.keys_evicted, end.keys_added, end.size, end.leases, end.draining) == (2, 4, 0, 0, 0)


def test_metrics_need_no_loop(pool: Pool) -> None:
    """A pool can be made, and its metrics read, without a running event loop."""
    assert pool.metrics().size == 0


@pytest.mark.parametrize("wrong", [{"max_items": 0}, {"ttl": 0}, {"degraded_ttl": -1}, {"drain_timeout": -1}])
def test_impossible_options(bridges: Bridges, wrong: dict[str, int]) -> None:
    """Options that a pool cannot satisfy are refused."""
    with pytest.raises(ValueError, match="must be positive"):
        CachedBridgePool(bridges, **wrong)  # type: ignore[arg-type]


async def test_hit_does_not_yield(pool: Pool) -> None:
    """A hit does not yield to other tasks."""
    await touch(pool)
    hit = touch(pool)
    with pytest.raises(StopIteration):
        hit.send(None)


async def test_spans(spans: InMemorySpanExporter, bridges: Bridges, clock: ManualClock) -> None:
    """Each acquire is a span with the principal and hit or miss, without the lease's duration.

    A build is a span below it, with its principal.
    """
    pool = make_pool(bridges, clock)
    async with pool.acquire(ALICE):
        assert not trace.get_current_span().is_recording()
        assert len(spans.get_finished_spans()) == 2
    await touch(pool)
    build, first, second = spans.get_finished_spans()
    assert [one.name for one in (first, second)] == ["CachedBridgePool.Acquire"] * 2
    assert [[event.name for event in one.events] for one in (first, second)] == [["cache_miss"], ["cache_hit"]]
    assert build.name == "CachedBridgePool.Build"
    assert build.parent is not None
    assert build.parent.span_id == first.context.span_id
    for span in (build, first, second):
        assert dict(span.attributes or {}) == {"aibridge.initiator_id": "alice", "aibridge.api_key_id": "key-1"}
    assert (pool.metrics().hits, pool.metrics().misses) == (1, 1)


async def test_build_span_hides_errors(spans: InMemorySpanExporter, bridges: Bridges, clock: ManualClock) -> None:
    """The span of a failed build has the error's class, but not its text, which may hold secrets."""
    pool = make_pool(bridges, clock)
    bridges.prepare = slow
    users = await arrive(pool)
    finish(bridges.last, OSError("https://user:hunter2@mcp.example"))
    with pytest.raises(OSError, match="hunter2"):
        await users[0].task
    (build,) = [span for span in spans.get_finished_spans() if span.name == "CachedBridgePool.Build"]
    assert (build.status.status_code, build.status.description) == (trace.StatusCode.ERROR, "OSError")
    assert build.events == ()


async def test_span_records_errors(spans: InMemorySpanExporter, bridges: Bridges, clock: ManualClock) -> None:
    """The span of a failed acquire has the error."""
    pool = make_pool(bridges, clock)
    await touch(pool)
    await pool.shutdown()
    with pytest.raises(PoolShutdown):
        await touch(pool)
    span = spans.get_finished_spans()[-1]
    assert span.status.status_code is trace.StatusCode.ERROR
    assert [event.name for event in span.events] == ["exception"]
