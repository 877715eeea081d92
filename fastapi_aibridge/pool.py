"""Who has which bridge, and for how long: cache, leases, single flight and retirement.

What a bridge is, and what a provider is, the pool does not know; it does no I/O of its own.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import logging
import math
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Generic, Literal, Protocol, TypeAlias, TypeVar

from cachetools import Cache, TLRUCache
from opentelemetry import trace

from .errors import PoolShutdown
from .principal import Principal

CLOSE_TIMEOUT = 5.0
"""Seconds that one bridge may take to close; after them its `aclose()` is cancelled."""

logger = logging.getLogger("fastapi_aibridge.pool")

Key: TypeAlias = tuple[str, str]
Reason: TypeAlias = Literal["capacity", "expired", "reloaded", "shutdown"]


class PooledBridge(Protocol):
    """What the pool needs of a bridge. `start()` and `aclose()` run in different tasks."""

    @property
    def degraded(self) -> bool:
        """Whether something is missing that may come back: such a bridge is cached for `degraded_ttl` only."""
        ...

    async def start(self) -> None:
        """Connect. An error here reaches everybody who waits for the bridge."""
        ...

    async def aclose(self) -> None:
        """Let go of everything, also if `start()` failed, was cancelled or never ran; cut what still runs.

        Called exactly once.
        """
        ...


class Timer(Protocol):
    def cancel(self) -> object: ...


class Clock(Protocol):
    """The time in seconds and what is to happen then. An asyncio event loop is one."""

    def time(self) -> float: ...

    def call_at(self, when: float, callback: Callable[..., object], /, *args: Any) -> Timer: ...


BridgeT = TypeVar("BridgeT", bound=PooledBridge)
ProviderT = TypeVar("ProviderT")


@dataclass(frozen=True, slots=True)
class PoolMetrics:
    """The pool at one moment; `hits` to `keys_evicted` and `evictions` count from its beginning and only grow."""

    size: int
    max_items: int
    ttl_seconds: float
    hits: int
    misses: int
    """Acquires that found no cached bridge, those that joined a build in flight included."""
    keys_added: int
    keys_evicted: int
    """Bridges that capacity or expiry removed from the cache."""
    builds_in_flight: int
    leases: int
    """Leases of bridges that are open, waiting for a build included."""
    draining: int
    """Bridges that have left the cache, or did not start, and are not closed yet."""
    provider_version: int
    evictions: Mapping[str, int]
    """Bridges that left the cache, by reason: `capacity`, `expired`, `reloaded`, `shutdown`."""


class Lease(Generic[BridgeT]):
    """The right to use a principal's bridge: `async with` gives the bridge, and leaving gives the lease back.

    Entering raises `PoolShutdown`, or whatever the bridge's factory or its `start()` raised.
    """

    __slots__ = ("_enter", "_leave", "_principal", "_slot")

    def __init__(
        self,
        principal: Principal,
        enter: Callable[[Principal], Coroutine[Any, Any, _Slot[BridgeT]]],
        leave: Callable[[_Slot[BridgeT]], None],
    ) -> None:
        self._principal = principal
        self._enter = enter
        self._leave = leave
        self._slot: _Slot[BridgeT] | None = None

    async def __aenter__(self) -> BridgeT:
        if self._slot is not None:
            raise RuntimeError("This lease is held already; call acquire() for another one")
        self._slot = slot = await self._enter(self._principal)
        return slot.bridge

    async def __aexit__(self, *exc_info: object) -> None:
        self.release()

    def release(self) -> None:
        """Give the lease back; a second time does nothing."""
        slot, self._slot = self._slot, None
        if slot is not None:
            self._leave(slot)


class CachedBridgePool(Generic[BridgeT, ProviderT]):
    """One bridge for each principal, built on demand, leased out, and closed once it is neither cached nor leased.

    `factory` makes a bridge for a principal from a snapshot of the providers; the pool then awaits its `start()`.
    A bridge is cached for `ttl` seconds from then on (`degraded_ttl` if it is degraded), among at most `max_items`
    others, the least recently acquired of which goes first. A bridge that leaves the cache is closed when its last
    lease has come back, `drain_timeout` seconds later at the latest. For use in one event loop.
    """

    def __init__(
        self,
        factory: Callable[[Principal, tuple[ProviderT, ...]], BridgeT],
        providers: Iterable[ProviderT] = (),
        *,
        max_items: int = 5000,
        ttl: float = 900.0,
        drain_timeout: float = 600.0,
        degraded_ttl: float = 30.0,
        clock: Clock | None = None,
    ) -> None:
        if max_items < 1 or ttl <= 0 or degraded_ttl <= 0 or drain_timeout < 0:
            raise ValueError("max_items, ttl and degraded_ttl must be positive, drain_timeout not negative")
        self._factory = factory
        self._max_items = max_items
        self._ttl = ttl
        self._degraded_ttl = min(ttl, degraded_ttl)
        self._drain_timeout = drain_timeout
        self._clock: Clock = clock or _LoopClock()
        self._tracer = trace.get_tracer("fastapi_aibridge")
        # What the pool starts outlives the request that caused it, so it must not pin that request's variables.
        self._context = contextvars.copy_context()

        # All that changes. A slot is in `_builds` until `_built`, then in `_cache` until `_retire`, then in `_draining`
        # until `_closed`; `_leases` follows the slots' own counts.
        self._builds: dict[tuple[Key, int], _Slot[BridgeT]] = {}
        self._cache = _BridgeCache[BridgeT](max_items, self._expiry, self._clock.time, self._evict)
        self._draining: set[_Slot[BridgeT]] = set()
        self._leases = 0
        self._providers = tuple(providers)  # with `_version`: replace_providers
        self._version = 1
        self._alarm: Timer | None = None  # with `_alarm_at`, when the next cached bridge expires: _set_alarm, _ring
        self._alarm_at = math.inf
        self._tasks: set[asyncio.Task[None]] = set()  # starts and closes that run: _spawn
        self._ending: asyncio.Task[None] | None = None  # shutdown
        self._quiet = asyncio.Event()  # set when nothing is built or closed any more: _built, _closed
        self._traced = False  # whether there is a tracer provider: _enter
        self._hits = self._misses = self._keys_added = 0
        self._evictions: dict[str, int] = dict.fromkeys(("capacity", "expired", "reloaded", "shutdown"), 0)

    @property
    def providers(self) -> tuple[ProviderT, ...]:
        return self._providers

    @property
    def provider_version(self) -> int:
        """Starts at 1 and grows with each `replace_providers`."""
        return self._version

    def acquire(self, principal: Principal) -> Lease[BridgeT]:
        """Lease the principal's bridge: `async with pool.acquire(principal) as bridge`.

        A bridge that is not cached is built first, once for all who ask. While the lease is held the bridge is not
        closed, except after `drain_timeout` or by `shutdown`.
        """
        return Lease(principal, self._enter, self._release)

    def replace_providers(self, providers: Iterable[ProviderT]) -> int:
        """Swap the providers and retire every cached bridge; return how many. After `shutdown` nothing happens: 0.

        Who began to acquire before may finish with the old providers; nobody who begins afterwards sees them.
        """
        if self._ending is not None:
            return 0
        self._providers = tuple(providers)
        self._version += 1
        retired = self._retire_all("reloaded")
        logger.info("Providers replaced: version %d, %d bridges retired", self._version, retired)
        return retired

    async def shutdown(self, grace: float = 0.0) -> None:
        """Refuse new leases, wait at most `grace` seconds for those out, then close every bridge that is left.

        Every bridge has been closed when this returns; one whose `start()` or `aclose()` hangs and ignores its
        cancellation is given up after 3 * `CLOSE_TIMEOUT`. Further calls wait for the end of the first one.
        """
        if self._ending is None:
            self._ending = asyncio.create_task(self._shut_down(grace))
        await asyncio.shield(self._ending)  # a caller that is cancelled leaves the others waiting, and the work going

    def metrics(self) -> PoolMetrics:
        """Cheap, whatever the pool's size, and free of side effects: fit for any thread and outside of the loop."""
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

    async def _enter(self, principal: Principal) -> _Slot[BridgeT]:
        if not self._traced:
            if (slot := self._hit(principal)) is not None:
                return slot
            # Asking costs as much as the whole hit, so only a miss asks: every traffic begins with one.
            self._traced = not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
            if not self._traced:
                return await self._miss(principal)
        who = {"aibridge.initiator_id": principal.initiator_id, "aibridge.api_key_id": principal.api_key_id}
        with self._tracer.start_as_current_span("CachedBridgePool.Acquire", attributes=who) as span:
            slot = self._hit(principal)
            span.add_event("cache_miss" if slot is None else "cache_hit")
            return slot or await self._miss(principal)

    def _hit(self, principal: Principal) -> _Slot[BridgeT] | None:
        if self._ending is not None:
            raise PoolShutdown
        try:
            slot = self._cache[principal.key]
        except KeyError:
            return None
        self._hits += 1
        self._leases += 1
        slot.leases += 1
        return slot

    async def _miss(self, principal: Principal) -> _Slot[BridgeT]:
        self._misses += 1
        slot = self._builds.get((principal.key, self._version)) or self._build(principal)
        # Leased before it is ready, so that nothing that happens until this waiter runs again can close the bridge.
        self._leases += 1
        slot.leases += 1
        try:
            await asyncio.wait((slot.ready,))  # cancelled, it leaves the future alone
            slot.ready.result()
        except BaseException:
            self._release(slot)
            raise
        if self._ending is not None:
            self._release(slot)
            raise PoolShutdown
        return slot

    def _release(self, slot: _Slot[BridgeT]) -> None:
        if slot.closing:
            return
        self._leases -= 1
        slot.leases -= 1
        if slot.retired and not slot.leases:
            self._close(slot)

    # A bridge's life

    def _build(self, principal: Principal) -> _Slot[BridgeT]:
        version = self._version
        bridge = self._context.copy().run(self._factory, principal, self._providers)
        slot = self._builds[principal.key, version] = _Slot(bridge, principal.key, version)
        slot.start = self._spawn(bridge.start(), self._built, slot)
        return slot

    def _built(self, slot: _Slot[BridgeT], start: asyncio.Task[None]) -> None:
        del self._builds[slot.key, slot.version]
        error: BaseException | None = None
        if self._ending is not None:
            error = PoolShutdown()
        elif start.cancelled():  # by itself: to the waiters that is an error, they have not been cancelled
            error = RuntimeError("The bridge was cancelled while it started")
        else:
            error = start.exception()
        slot.settle(error)
        if error is not None:
            self._close(slot)
        elif slot.version != self._version:
            self._retire(slot)
        else:
            self._cache[slot.key] = slot
            self._keys_added += 1
            self._set_alarm()
        self._note_quiet()

    def _expiry(self, _key: Key, slot: _Slot[BridgeT], now: float) -> float:
        slot.expires_at = now + (self._degraded_ttl if slot.bridge.degraded else self._ttl)
        return slot.expires_at

    def _evict(self, slot: _Slot[BridgeT], reason: Reason) -> None:
        self._evictions[reason] += 1
        self._retire(slot)

    def _retire_all(self, reason: Reason) -> int:
        slots = self._cache.take_all()
        for slot in slots:
            self._evict(slot, reason)
        self._set_alarm()
        return len(slots)

    def _retire(self, slot: _Slot[BridgeT]) -> None:
        """Take no more leases for a slot that is not in the cache (any more), and close it after its last one."""
        slot.retired = True
        self._draining.add(slot)
        if slot.leases:
            slot.timer = self._at(self._clock.time() + self._drain_timeout, self._cut, slot)
        else:
            self._close(slot)

    def _cut(self, slot: _Slot[BridgeT]) -> None:
        logger.warning("Closing a bridge with %d leases that did not come back in time", slot.leases)
        self._close(slot)

    def _close(self, slot: _Slot[BridgeT]) -> None:
        """Close the bridge in the background, leased or not. Only a slot's first time counts."""
        if slot.closing:
            return
        slot.closing = True
        self._draining.add(slot)
        self._leases -= slot.leases  # what comes back from here on is no lease any more
        if slot.timer is not None:
            slot.timer.cancel()
        close = self._spawn(slot.bridge.aclose(), self._closed, slot)
        slot.timer = self._at(self._clock.time() + CLOSE_TIMEOUT, close.cancel)

    def _closed(self, slot: _Slot[BridgeT], close: asyncio.Task[None]) -> None:
        self._draining.remove(slot)
        if slot.timer is not None:
            slot.timer.cancel()
        if close.cancelled():
            logger.warning("A bridge did not close within %g s and was cut off", CLOSE_TIMEOUT)
        elif (error := close.exception()) is not None:
            # The type alone: what a library writes into its errors may name URLs and headers.
            logger.warning("A bridge failed to close: %s", type(error).__qualname__)
        self._note_quiet()

    # Time

    def _set_alarm(self) -> None:
        """One timer, for the bridge that expires first. Earlier than needed does no harm, later would."""
        at = self._cache.next_expiry()
        if at == self._alarm_at:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = at
        self._alarm = None if at == math.inf else self._at(at, self._ring)

    def _ring(self) -> None:
        self._alarm, self._alarm_at = None, math.inf
        self._cache.expire()
        self._set_alarm()

    def _at(self, when: float, callback: Callable[..., object], *args: object) -> Timer:
        return self._context.copy().run(self._clock.call_at, when, callback, *args)

    # The end

    async def _shut_down(self, grace: float) -> None:
        for slot in self._builds.values():
            slot.settle(PoolShutdown())
            if slot.start is not None:
                slot.start.cancel()
            slot.timer = self._at(self._clock.time() + CLOSE_TIMEOUT, self._close, slot)  # if it ignores that
        self._retire_all("shutdown")
        await self._wait_until_quiet(grace)
        for slot in tuple(self._draining):
            self._close(slot)
        await self._wait_until_quiet(3 * CLOSE_TIMEOUT)
        if self._draining:
            logger.error("Shut down with %d bridges that did not close", len(self._draining))

    async def _wait_until_quiet(self, seconds: float) -> None:
        if seconds > 0 and (self._builds or self._draining):
            self._quiet.clear()
            timer = self._at(self._clock.time() + seconds, self._quiet.set)
            await self._quiet.wait()
            timer.cancel()

    def _note_quiet(self) -> None:
        if not self._builds and not self._draining:
            self._quiet.set()

    def _spawn(
        self,
        work: Coroutine[Any, Any, None],
        done: Callable[[_Slot[BridgeT], asyncio.Task[None]], None],
        slot: _Slot[BridgeT],
    ) -> asyncio.Task[None]:
        """Run `work` for the pool, whoever caused it, and call `done` when it has ended, however it did."""
        task = asyncio.create_task(work, context=self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard, context=self._context)
        task.add_done_callback(partial(done, slot), context=self._context)
        return task


class _Slot(Generic[BridgeT]):
    """One bridge, from the factory to its end: starting, cached, retired, closing. Waiters count as leases."""

    __slots__ = ("bridge", "closing", "expires_at", "key", "leases", "ready", "retired", "start", "timer", "version")

    def __init__(self, bridge: BridgeT, key: Key, version: int) -> None:
        self.bridge = bridge
        self.key = key
        self.version = version
        self.leases = 0
        self.retired = False
        self.closing = False
        self.expires_at = math.inf
        self.start: asyncio.Task[None] | None = None
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.timer: Timer | None = None  # of the one thing that is due next: the drain's or the close's timeout

    def settle(self, error: BaseException | None) -> None:
        """Tell the waiters how the build ended; the first time counts."""
        if self.ready.done():
            return
        if error is None:
            self.ready.set_result(None)
        else:
            self.ready.set_exception(error)
            self.ready.exception()  # seen, also if nobody waits


class _BridgeCache(TLRUCache[Key, _Slot[BridgeT], float], Generic[BridgeT]):
    """cachetools' cache, which drops what expires or is too much in silence, made to hand it over instead."""

    __len__, __repr__ = Cache.__len__, object.__repr__  # theirs expire, but metrics and debuggers only want to look

    def __init__(
        self,
        maxsize: int,
        expiry: Callable[[Key, _Slot[BridgeT], float], float],
        timer: Callable[[], float],
        dropped: Callable[[_Slot[BridgeT], Reason], None],
    ) -> None:
        super().__init__(maxsize, expiry, timer)
        self._dropped = dropped
        self._due: list[tuple[float, Key]] = []  # a heap: what expires first; may hold what has left the cache

    def expire(self, time: float | None = None) -> list[tuple[Key, _Slot[BridgeT]]]:
        expired = super().expire(time)
        for _, slot in expired:
            self._dropped(slot, "expired")
        return expired

    def popitem(self) -> tuple[Key, _Slot[BridgeT]]:
        key, slot = super().popitem()
        self._dropped(slot, "capacity")
        return key, slot

    def take_all(self) -> list[_Slot[BridgeT]]:
        """Empty the cache of what has not expired."""
        with self.timer:  # the time stands still, so that nothing expires between two lines
            self.expire()
            slots = list(self.values())
            self.clear()
        return slots

    def __setitem__(self, key: Key, slot: _Slot[BridgeT]) -> None:
        super().__setitem__(key, slot)
        heapq.heappush(self._due, (slot.expires_at, key))

    def next_expiry(self) -> float:
        self.expire()
        due = self._due
        if len(due) > 2 * len(self) + 16:
            due[:] = [one for one in due if self._holds(*one)]
            heapq.heapify(due)
        while due and not self._holds(*due[0]):
            heapq.heappop(due)
        return due[0][0] if due else math.inf

    def _holds(self, expires_at: float, key: Key) -> bool:
        # Unlike self[key], this is no use of the key.
        return key in self and Cache.__getitem__(self, key).expires_at == expires_at


class _LoopClock:
    """The running loop's timers on the system's monotonic time, which can be read outside of a loop, too."""

    time = staticmethod(time.monotonic)

    def call_at(self, when: float, callback: Callable[..., object], /, *args: Any) -> Timer:
        return asyncio.get_running_loop().call_later(when - time.monotonic(), callback, *args)
