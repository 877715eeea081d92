"""Random interleavings of everything that may happen to a pool, in single turns of the event loop, by hypothesis."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from cachetools import Cache
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pydantic import SecretStr

from fastapi_aibridge.errors import BuildTimeout, PoolShutdown
from fastapi_aibridge.pool.pool import CachedBridgePool
from fastapi_aibridge.principal import Principal

from .bridges import FakeBridge
from .clock import ManualClock

TTL, DEGRADED_TTL, DRAIN_TIMEOUT, BUILD_TIMEOUT, TICK = 12.0, 5.0, 11.0, 9.0, 4.0
PRINCIPALS = [
    Principal("a|b", ""),
    Principal("a", "b"),
    Principal("a", "b", "s-1"),
    Principal("a", "b", SecretStr("s-2"), {"shift": "night"}),
    Principal("a", ""),
    Principal("c", "d", "s-1"),
]

pick = st.integers(0, 1000)
some_turns = st.integers(0, 4)


class StartError(Exception):
    pass


@dataclass(eq=False)
class User:
    """A request that acquires a bridge and holds it until `leave`."""

    principal: Principal
    leave: asyncio.Event = field(default_factory=asyncio.Event)
    bridge: FakeBridge | None = None
    task: asyncio.Task[None] | None = None
    cancelled: bool = False
    after_shutdown: bool = False


class PoolMachine(RuleBasedStateMachine):
    """The rules schedule a callback in the loop, which then makes the drawn number of turns, often none."""

    @initialize(max_items=st.integers(1, 3))
    def open(self, max_items: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop_errors: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _loop, error: self.loop_errors.append(error))
        self.clock = ManualClock()
        self.max_items = max_items
        self.built: list[FakeBridge] = []
        self.quick = False  # whether the next bridge starts at once
        self.pool: CachedBridgePool[FakeBridge, str] = CachedBridgePool(
            self.build,
            ["v0001"],
            max_items=max_items,
            ttl=TTL,
            degraded_ttl=DEGRADED_TTL,
            drain_timeout=DRAIN_TIMEOUT,
            build_timeout=BUILD_TIMEOUT,
            clock=self.clock,
        )
        self.users: list[User] = []
        self.in_cache_at: dict[FakeBridge, float] = {}  # last seen in the cache or being built
        self.cached_at: dict[FakeBridge, float] = {}  # first seen in the cache
        self.shutdowns: list[asyncio.Task[None]] = []
        self.metrics = self.pool.metrics()

    def build(self, principal: Principal, providers: tuple[str, ...]) -> FakeBridge:
        asked = (principal.key, principal.session, providers)
        in_flight = [b for b in self.built if b.started and not b.started.done()]
        assert asked not in [(b.principal.key, b.principal.session, b.providers) for b in in_flight], "two builds"
        bridge = FakeBridge(principal, providers)
        if not self.quick:
            bridge.started = self.loop.create_future()
        self.in_cache_at[bridge] = self.clock.now
        self.built.append(bridge)
        return bridge

    def do(self, action: Callable[[], object], turns: int) -> None:
        self.loop.call_soon(action)
        self.turn(turns)

    def turn(self, turns: int) -> None:
        for _ in range(turns):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
            self.look()

    def cached(self) -> list[FakeBridge]:
        slots = [Cache.__getitem__(self.pool._cache, key) for key in Cache.__iter__(self.pool._cache)]
        return [cast("FakeBridge", slot.bridge) for slot in slots]

    def look(self) -> None:
        """Check the invariants of every moment."""
        cached = self.cached()
        assert len({bridge.principal.key for bridge in cached}) == len(cached)
        for bridge in cached:
            self.in_cache_at[bridge] = self.clock.now
            self.cached_at.setdefault(bridge, self.clock.now)
            assert bridge.providers == self.pool.providers
        for bridge in self.built:
            assert bridge.closes <= 1
            assert bridge.retires <= 1
            if bridge.started and not bridge.started.done():
                self.in_cache_at[bridge] = self.clock.now
        for user in self.users:
            if user.bridge is not None:
                self.check_held(user.bridge)
        old, new = self.metrics, self.pool.metrics()
        self.metrics = new
        assert new.size <= self.max_items
        assert old.hits <= new.hits
        assert old.misses <= new.misses
        assert old.keys_added <= new.keys_added <= new.misses
        assert old.keys_evicted <= new.keys_evicted
        assert all(old.evictions[reason] <= n for reason, n in new.evictions.items())
        assert new.keys_added == new.size + sum(new.evictions.values())
        assert min(new.leases, new.draining, new.builds_in_flight) >= 0
        assert self.loop_errors == []

    def rest_and_look(self) -> None:
        """Check the invariants at rest: nothing is kept longer than it should be."""
        self.turn(12)
        now = self.clock.now
        here = [user for user in self.users if user.task is not None and not user.task.done()]
        leases = sum(user.bridge is None or not user.bridge.closed for user in here)
        assert self.pool.metrics().leases == leases, "a lease was lost or kept"
        for slot in self.pool._builds.values():
            assert now - slot.began < BUILD_TIMEOUT, "a build without end"
        cached = self.cached()
        for bridge in cached:
            ttl = DEGRADED_TTL if bridge.degraded else TTL
            assert now - self.cached_at[bridge] < ttl, "cached beyond its time"
        for bridge in self.built:
            building = bridge.starting
            held = any(user.bridge is bridge for user in self.users)
            assert bridge.closed or building or held or bridge in cached, "nobody's, and not closed"
            if held and not bridge.closed:
                assert now - self.in_cache_at[bridge] < DRAIN_TIMEOUT + 2 * TICK, "leased for ever"

    def check_held(self, bridge: FakeBridge) -> None:
        if bridge.closed and not self.shutdowns:
            assert self.clock.now - self.in_cache_at[bridge] >= DRAIN_TIMEOUT, "closed under its user"

    async def use(self, user: User) -> None:
        version = self.pool.provider_version
        try:
            async with self.pool.acquire(user.principal) as bridge:
                assert (bridge.principal.key, bridge.principal.session) == (user.principal.key, user.principal.session)
                assert bridge.providers >= (f"v{version:04}",), "old providers after a reload"
                assert not user.after_shutdown
                user.bridge = bridge
                self.check_held(bridge)
                try:
                    await user.leave.wait()
                finally:
                    self.check_held(bridge)
                    user.bridge = None
        except (StartError, BuildTimeout):
            pass
        except PoolShutdown:
            assert self.shutdowns

    @rule(principal=st.sampled_from(PRINCIPALS), quick=st.booleans(), turns=some_turns)
    def acquire(self, principal: Principal, quick: bool, turns: int) -> None:
        user = User(principal)
        self.users.append(user)

        def start() -> None:
            self.quick = quick
            user.after_shutdown = bool(self.shutdowns) and self.pool._ending is not None
            user.task = self.loop.create_task(self.use(user))

        self.do(start, turns)

    @precondition(lambda self: self.users)
    @rule(which=pick, turns=some_turns)
    def release(self, which: int, turns: int) -> None:
        self.do(self.users[which % len(self.users)].leave.set, turns)

    @precondition(lambda self: self.users)
    @rule(which=pick, turns=some_turns)
    def cancel(self, which: int, turns: int) -> None:
        user = self.users[which % len(self.users)]

        def cancel() -> None:
            user.cancelled |= user.task is not None and user.task.cancel()

        self.do(cancel, turns)

    @precondition(lambda self: any(b.started and not b.started.done() for b in self.built))
    @rule(which=pick, end=st.sampled_from(["ok", "ok", "ok", "degraded", "error"]), turns=some_turns)
    def finish_build(self, which: int, end: str, turns: int) -> None:
        waiting = [b for b in self.built if b.started and not b.started.done()]
        bridge = waiting[which % len(waiting)]
        bridge.degraded = end == "degraded"

        def finish() -> None:
            if bridge.started is None or bridge.started.done():
                return
            if end == "error":
                bridge.started.set_exception(StartError())
            else:
                bridge.started.set_result(None)

        self.do(finish, turns)

    @precondition(lambda self: any(b.started and not b.started.done() for b in self.built))
    @rule(which=pick)
    def spoil_start(self, which: int) -> None:
        waiting = [b for b in self.built if b.started and not b.started.done()]
        waiting[which % len(waiting)].hang_when_cancelled = self.loop.create_future()

    @precondition(lambda self: self.built)
    @rule(which=pick, how=st.sampled_from(["fail", "hang"]))
    def spoil_close(self, which: int, how: str) -> None:
        bridge = self.built[which % len(self.built)]
        if how == "fail":
            bridge.close_error = OSError()
        else:
            bridge.closing = self.loop.create_future()

    @rule(seconds=st.sampled_from([0.5, TICK / 2, TICK]), turns=some_turns)
    def advance(self, seconds: float, turns: int) -> None:
        self.do(lambda: self.clock.advance(seconds), turns)
        self.turn(1)  # so that two advances are observed separately

    @rule(turns=some_turns)
    def reload(self, turns: int) -> None:
        def replace() -> None:
            size, version = self.pool.metrics().size, self.pool.provider_version
            expired = self.pool.metrics().evictions["expired"]
            retired = self.pool.replace_providers([f"v{version + 1:04}"])
            if self.pool._ending is None:
                assert retired == size - (self.pool.metrics().evictions["expired"] - expired)
                assert self.pool.provider_version == version + 1
                assert self.pool.metrics().size == 0
            else:
                assert (retired, self.pool.provider_version) == (0, version)

        self.do(replace, turns)

    @rule()
    def rest(self) -> None:
        self.rest_and_look()

    @precondition(lambda self: len(self.users) > 5)
    @rule(grace=st.sampled_from([0.0, 1.0, 10.0]), turns=some_turns)
    def shutdown(self, grace: float, turns: int) -> None:
        self.do(lambda: self.shutdowns.append(self.loop.create_task(self.pool.shutdown(grace))), turns)

    @invariant()
    def always(self) -> None:
        if hasattr(self, "pool"):
            self.look()

    def teardown(self) -> None:
        if not hasattr(self, "pool"):
            return
        try:
            self.rest_and_look()
            for user in self.users[::2]:
                user.leave.set()
            self.rest_and_look()
            self.shutdowns.append(self.loop.create_task(self.pool.shutdown(1.0)))
            for _ in range(10):
                self.do(lambda: self.clock.advance(TICK), 10)
            assert all(task.done() and task.exception() is None for task in self.shutdowns)
            assert [b.closes for b in self.built] == [1] * len(self.built)
            assert self.clock.pending == []
            for user in self.users:
                user.leave.set()
            self.turn(10)
            for user in self.users:
                assert user.task is not None
                assert user.task.done()
                assert user.task.cancelled() == user.cancelled, "a cancellation was lost or made up"
                assert user.cancelled or user.task.exception() is None
            end = self.pool.metrics()
            assert (end.size, end.leases, end.draining, end.builds_in_flight) == (0, 0, 0, 0)
            assert [b.closes for b in self.built] == [1] * len(self.built)
        finally:
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.loop.run_until_complete(asyncio.sleep(0))
            self.loop.close()


TestPoolMachine = PoolMachine.TestCase
TestPoolMachine.settings = settings(
    max_examples=200, stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
