"""The pool, which builds, caches, leases and closes bridges."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterable
from functools import partial
from types import MappingProxyType
from typing import Generic, TypeVar, get_args

from opentelemetry import trace

from ..errors import BuildTimeout, ConfigurationError, PoolShutdown
from ..principal import Principal
from .background import Background, Clock, Timer
from .barred import BarredKeys
from .expiring_cache import ExpiringCache
from .lease import Lease
from .metrics import Outcome, PoolMetrics, Reason
from .pooled import PooledBridge, WaitingRoom
from .slot import BuildKey, Key, Slot, building
from .spans import BuildSpan, is_traced, named

BUILD_TIMEOUT = 30.0
"""Seconds that a bridge may take to start: longer than its MCP servers, which connect concurrently, may take."""
CLOSE_TIMEOUT = 5.0
"""Seconds that a bridge may take to close before its `aclose()` is cancelled."""

logger = logging.getLogger("fastapi_aibridge.pool")

LeasedT = TypeVar("LeasedT")
ProviderT = TypeVar("ProviderT")


class CachedBridgePool(Generic[LeasedT, ProviderT]):
    """One bridge for each principal, built on demand, leased out, and closed once it is neither cached nor leased.

    `factory` makes a bridge for a principal from a snapshot of the providers; the pool then awaits its `start()` for
    `build_timeout` seconds at most. A bridge is cached for `ttl` seconds after its start, or `degraded_ttl` if it is
    degraded. The cache holds `max_items` bridges and drops the least recently acquired one first. A bridge built for
    another session key of the same principal replaces the cached one. A bridge that leaves the cache is closed when
    its last lease is released, but after `drain_timeout` seconds at the latest. `waiting_room` limits how many requests
    wait for a bridge. `built` is called with the seconds and the outcome of each build. For use in one event loop.
    """

    def __init__(
        self,
        factory: Callable[[Principal, tuple[ProviderT, ...]], PooledBridge[LeasedT]],
        providers: Iterable[ProviderT] = (),
        *,
        max_items: int = 5000,
        ttl: float = 900.0,
        drain_timeout: float = 600.0,
        degraded_ttl: float = 30.0,
        build_timeout: float = BUILD_TIMEOUT,
        clock: Clock | None = None,
        waiting_room: WaitingRoom | None = None,
        built: Callable[[float, Outcome], None] = lambda _seconds, _outcome: None,
    ) -> None:
        if max_items < 1 or ttl <= 0 or degraded_ttl <= 0 or build_timeout <= 0 or drain_timeout < 0:
            raise ValueError("max_items, ttl, degraded_ttl, build_timeout must be positive, drain_timeout not negative")
        self._factory = factory
        self._max_items = max_items
        self._ttl = ttl
        self._degraded_ttl = min(ttl, degraded_ttl)
        self._build_timeout = build_timeout
        self._drain_timeout = drain_timeout
        self._waiting_room = waiting_room
        self._report_build = built
        self._tracer = trace.get_tracer("fastapi_aibridge")
        self._background = Background(clock)
        self._clock = self._background.clock

        # The mutable state. A slot is in `_builds` until `_built` or `_give_up`, then in `_cache` until `_retire`, then
        # in `_draining` until `_closed`. `_leases` is the sum of the slots' own counts.
        self._builds: dict[BuildKey, Slot[LeasedT]] = {}
        self._begun = 0  # the number of builds so far
        self._cache = ExpiringCache[LeasedT](max_items, self._clock.time, self._evict)
        self._draining: set[Slot[LeasedT]] = set()
        self._barred = BarredKeys()
        self._leases = 0
        self._providers = tuple(providers)
        self._version = 1
        self._alarm: Timer | None = None  # rings at `_alarm_at`, when the next cached bridge expires
        self._alarm_at = math.inf
        self._ending: asyncio.Task[None] | None = None  # the shutdown
        self._quiet = asyncio.Event()  # set when no bridge is being built or closed
        self._traced = False  # whether there is a tracer provider
        self._hits = self._misses = self._keys_added = 0
        self._evictions: dict[str, int] = dict.fromkeys(get_args(Reason), 0)

    @property
    def providers(self) -> tuple[ProviderT, ...]:
        return self._providers

    @property
    def provider_version(self) -> int:
        """Starts at 1 and grows with each `replace_providers`."""
        return self._version

    def acquire(self, principal: Principal) -> Lease[LeasedT]:
        """Lease the principal's bridge: `async with pool.acquire(principal) as bridge`.

        A bridge that is not cached is built first; concurrent acquires share one build. While the lease is held, the
        bridge is closed only after `drain_timeout` or by `shutdown`.
        """
        return Lease(principal, self._cached, self._enter, self._release)

    def replace_providers(self, providers: Iterable[ProviderT]) -> int:
        """Swap the providers and retire all cached bridges; return their number. Does nothing after `shutdown`.

        An acquire that has begun before may get a bridge with the old providers; a later one never does.
        """
        if self._ending is not None:
            return 0
        self._providers = tuple(providers)
        self._version += 1
        retired = self._retire_all("reloaded")
        logger.info(
            "Providers replaced: version %d, %d providers, %d bridges retired",
            self._version, len(self._providers), retired,
        )  # fmt: skip
        return retired

    def cut_off(self, key: Key, error: Callable[[], Exception]) -> None:
        """Stop a key's builds, retire its bridge and end its requests. Waiters and later acquires get the error."""
        self._barred.add(key, error)
        for build in [slot for slot in self._builds.values() if slot.key == key]:
            self._stop_build(build, error(), "failed")
        if (cached := self._cache.peek(key)) is not None:
            del self._cache[key]
            self._evict(cached, "revoked")
        for slot in [slot for slot in self._draining if slot.key == key]:
            slot.bridge.cut(error)

    async def shutdown(self, grace: float = 0.0) -> None:
        """Refuse new leases, wait at most `grace` seconds for those that are held, then close all remaining bridges.

        All bridges are closed when this returns, except one whose `start()` or `aclose()` hangs and ignores its
        cancellation: it is given up after 3 * `CLOSE_TIMEOUT`. Further calls wait for the first one.
        """
        if self._ending is None:
            self._ending = asyncio.create_task(self._shut_down(grace))
        await asyncio.shield(self._ending)  # a cancelled caller does not stop the shutdown

    def metrics(self) -> PoolMetrics:
        """Return the pool's metrics. Cheap and free of side effects; may be called in any thread."""
        return PoolMetrics(
            size=len(self._cache),
            max_items=self._max_items,
            ttl_seconds=self._ttl,
            hits=self._hits,
            misses=self._misses,
            keys_added=self._keys_added,
            keys_evicted=self._evictions["capacity"] + self._evictions["expired"],
            builds_in_flight=len(self._builds),
            leases=self._leases,
            draining=len(self._draining),
            provider_version=self._version,
            evictions=MappingProxyType(dict(self._evictions)),
        )

    # Leases

    def _cached(self, principal: Principal) -> Slot[LeasedT] | None:
        """Lease a cached bridge the fast way. None if there is none, or if acquires are traced."""
        return None if self._traced else self._hit(principal)

    async def _enter(self, principal: Principal) -> Slot[LeasedT]:
        if not self._traced:
            # The look-up costs as much as a whole hit, so only a miss does it; all traffic begins with a miss.
            self._traced = is_traced()
            if not self._traced:
                return await self._miss(principal)
        with self._tracer.start_as_current_span("CachedBridgePool.Acquire", attributes=named(principal)) as span:
            slot = self._hit(principal)
            span.add_event("cache_miss" if slot is None else "cache_hit")
            return slot or await self._miss(principal)

    def _hit(self, principal: Principal) -> Slot[LeasedT] | None:
        if self._ending is not None:
            raise PoolShutdown
        try:
            slot = self._cache[principal.key]
        except KeyError:
            return None
        if slot.principal is not principal and not slot.serves(principal):
            return None
        self._hits += 1
        self._leases += 1
        slot.leases += 1
        return slot

    async def _miss(self, principal: Principal) -> Slot[LeasedT]:
        self._misses += 1
        room = self._waiting_room
        if room is None:
            return await self._join(principal)
        await room.enter(principal.initiator_id)
        try:
            return self._hit(principal) or await self._join(principal)  # `enter` may have waited
        finally:
            room.leave(principal.initiator_id)

    async def _join(self, principal: Principal) -> Slot[LeasedT]:
        """Join the running build of this principal, or begin one, and wait for it."""
        slot = self._builds.get((principal.key, principal.session, self._version)) or self._build(principal)
        # Leased before it is ready, so that the bridge cannot be closed before this waiter runs again.
        self._leases += 1
        slot.leases += 1
        try:
            await self._wait_for(slot)
            slot.ready.result()
        except BaseException:
            self._release(slot)
            raise
        if self._ending is not None:
            self._release(slot)
            raise PoolShutdown
        return slot

    async def _wait_for(self, slot: Slot[LeasedT]) -> None:
        inside = building.get()
        if inside is None or inside.ready.done():
            await asyncio.wait((slot.ready,))  # unlike a plain await, does not cancel the future
            return
        if slot.waits_for(inside):
            raise ConfigurationError(
                f"the bridge of initiator {slot.key[0]!r} is acquired while it is being built, by the build itself, "
                "which would wait for its own end: do not acquire a principal's bridge in what MCPProxyBuilder.build() "
                "or a token provider calls for the same principal"
            )
        inside.awaited.append(slot)
        try:
            await asyncio.wait((slot.ready,))
        finally:
            inside.awaited.remove(slot)

    def _release(self, slot: Slot[LeasedT]) -> None:
        if slot.closing:
            return
        self._leases -= 1
        slot.leases -= 1
        if slot.retired and not slot.leases:
            self._close(slot)

    # A bridge's life

    def _build(self, principal: Principal) -> Slot[LeasedT]:
        self._barred.check(principal.key)
        key = (principal.key, principal.session, self._version)
        context = self._background.context()
        bridge = context.run(self._factory, principal, self._providers)
        self._begun += 1
        slot = self._builds[key] = Slot(bridge, principal, key, self._begun, self._clock.time())
        context.run(building.set, slot)
        start = BuildSpan(self._tracer, principal, bridge.start) if self._traced else bridge.start
        slot.start = self._background.spawn(start, partial(self._built, slot), context)
        slot.set_timer(self._background.after(self._build_timeout, self._give_up, slot))
        return slot

    def _give_up(self, slot: Slot[LeasedT]) -> None:
        """Give up a build that took too long. Its waiters get `BuildTimeout`; the next acquire begins another."""
        logger.warning("A bridge was not ready within %g s; its build is given up", self._build_timeout)
        self._stop_build(slot, BuildTimeout(self._build_timeout), "timeout")

    def _stop_build(self, slot: Slot[LeasedT], error: Exception, outcome: Outcome) -> None:
        if not slot.settle(error):
            return
        self._report_build(self._clock.time() - slot.began, outcome)
        del self._builds[slot.build_key]
        self._draining.add(slot)
        if slot.start is not None:
            slot.start.cancel()
        slot.set_timer(self._background.after(CLOSE_TIMEOUT, self._close, slot))  # if it ignores the cancellation

    def _built(self, slot: Slot[LeasedT], start: asyncio.Task[None]) -> None:
        if start.cancelled():  # by its own code; the waiters were not cancelled, so they get an error
            error: BaseException | None = RuntimeError("The bridge was cancelled while it started")
        else:
            error = start.exception()
        degraded = False
        if error is None:
            try:
                degraded = slot.bridge.degraded
            except Exception as problem:  # noqa: BLE001 - treated like a failed start, so that the bridge is closed
                error = problem
        if not slot.settle(error):  # the build was given up before
            self._close(slot)
            return
        del self._builds[slot.build_key]
        slot.set_timer(None)
        now = self._clock.time()
        outcome: Outcome = "failed" if error is not None else "degraded" if degraded else "ok"
        self._report_build(now - slot.began, outcome)
        if error is not None:
            self._close(slot)
        else:
            slot.expires_at = now + (self._degraded_ttl if degraded else self._ttl)
            self._keep(slot)
        self._note_quiet()

    def _keep(self, slot: Slot[LeasedT]) -> None:
        """Cache a bridge that has started; retire it if it has old providers or a later build was cached first."""
        newer = self._cache.peek(slot.key)
        if slot.version != self._version or (newer is not None and newer.number > slot.number):
            self._retire(slot)
            return
        self._keys_added += 1
        self._cache.put(slot)
        self._set_alarm()

    def _evict(self, slot: Slot[LeasedT], reason: Reason) -> None:
        self._evictions[reason] += 1
        self._retire(slot)

    def _retire_all(self, reason: Reason) -> int:
        slots = self._cache.take_all()
        for slot in slots:
            self._evict(slot, reason)
        self._set_alarm()
        return len(slots)

    def _retire(self, slot: Slot[LeasedT]) -> None:
        """Retire a slot that is no longer cached: close it after its last lease, or after `drain_timeout`."""
        slot.retired = True
        slot.bridge.retire()
        self._draining.add(slot)
        if slot.leases:
            slot.set_timer(self._background.after(self._drain_timeout, self._cut, slot))
        else:
            self._close(slot)

    def _cut(self, slot: Slot[LeasedT]) -> None:
        logger.warning("Closing a bridge with %d leases that did not come back in time", slot.leases)
        self._close(slot)

    def _close(self, slot: Slot[LeasedT]) -> None:
        """Close the bridge in the background, leased or not. Further calls do nothing."""
        if slot.closing:
            return
        slot.closing = True
        self._draining.add(slot)
        self._leases -= slot.leases  # a later `_release` of this slot does nothing
        close = self._background.spawn(slot.bridge.aclose, partial(self._closed, slot))
        slot.set_timer(self._background.after(CLOSE_TIMEOUT, close.cancel))

    def _closed(self, slot: Slot[LeasedT], close: asyncio.Task[None]) -> None:
        self._draining.remove(slot)
        slot.set_timer(None)
        if close.cancelled():
            logger.warning("A bridge did not close within %g s and was cut off", CLOSE_TIMEOUT)
        elif (error := close.exception()) is not None:
            # Only the type, because a library's error text may name URLs and headers.
            logger.warning("A bridge failed to close: %s", type(error).__qualname__)
        self._note_quiet()

    # Time

    def _set_alarm(self) -> None:
        """Set the one timer to the next expiry. It may ring too early, but never too late."""
        at = self._cache.next_expiry()
        if at == self._alarm_at:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = at
        self._alarm = None if at == math.inf else self._background.at(at, self._ring)

    def _ring(self) -> None:
        self._alarm, self._alarm_at = None, math.inf
        self._cache.expire()
        self._set_alarm()

    # The end

    async def _shut_down(self, grace: float) -> None:
        for slot in tuple(self._builds.values()):
            self._stop_build(slot, PoolShutdown(), "shutdown")
        self._retire_all("shutdown")
        await self._wait_until_quiet(grace)
        for slot in tuple(self._draining):
            if slot.retired:
                self._close(slot)
        await self._wait_until_quiet(3 * CLOSE_TIMEOUT)
        if self._draining:
            logger.error("Shut down with %d bridges that did not close", len(self._draining))

    async def _wait_until_quiet(self, seconds: float) -> None:
        if seconds > 0 and self._draining:
            self._quiet.clear()
            timer = self._background.after(seconds, self._quiet.set)
            await self._quiet.wait()
            timer.cancel()

    def _note_quiet(self) -> None:
        if not self._builds and not self._draining:
            self._quiet.set()
