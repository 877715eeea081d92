"""Connection pools, one for each origin: they limit the number of connections and their age, and reuse free ones."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from contextlib import suppress

from .connection import Connection
from .origin import Origin

CONNECTIONS_PER_ORIGIN = 4096
"""The most connections to one origin. One process serves fewer at a time, so that only a runaway is limited."""
IDLE_PER_ORIGIN = 1024
IDLE_FOR = 30.0
"""Seconds after which an idle connection is closed."""
MAX_AGE = 600.0
"""Seconds after which a connection is not used again: the name may have another address by now."""
MAX_ORIGINS = 256
"""Origins whose idle connections are kept."""
CLOSE_TIMEOUT = 2.0
"""Seconds that connections may take to close at the end."""

Connect = Callable[[], Awaitable[Connection]]


class OriginPool:
    """The connections to one origin. The one that was used last is reused first, so that the others can expire."""

    __slots__ = ("_connecting", "_free", "_limit", "_on_change", "_open", "_waiting", "authority")

    def __init__(self, origin: Origin, limit: int, on_change: Callable[[OriginPool], None]) -> None:
        self.authority = origin.authority.encode("ascii")
        self._limit = limit
        self._on_change = on_change
        # Mutable state, with the methods that change it
        self._open: set[Connection] = set()  # free or in use: acquire, returned
        self._connecting = 0  # acquire
        self._free: OrderedDict[Connection, None] = OrderedDict()  # longest first: take_free, returned, sweep
        self._waiting: deque[asyncio.Future[None]] = deque()  # acquire, _call_next

    def __len__(self) -> int:
        """The number of connections, including those that are being made."""
        return len(self._open) + self._connecting

    @property
    def idle(self) -> int:
        return len(self._free)

    def take_free(self) -> Connection | None:
        """Take an idle connection; None if there is none."""
        while self._free:
            connection, _ = self._free.popitem()
            if connection.is_open:
                return connection
        return None

    async def acquire(self, connect: Connect, *, fresh: bool) -> tuple[Connection, bool]:
        """Return a connection, and whether it had been used before. Waits while the limit is reached.

        `fresh` asks for a new one. Raises what `connect` raises.
        """
        while fresh or (free := self.take_free()) is None:
            if len(self) < self._limit:
                return await self._connect(connect), False
            if self._free:
                self._free.popitem(last=False)[0].close()  # makes room once it is lost
            await self._turn()
        return free, True

    async def _connect(self, connect: Connect) -> Connection:
        self._connecting += 1
        try:
            connection = await connect()
        except BaseException:
            self._connecting -= 1
            self._call_next()
            self._on_change(self)
            raise
        self._connecting -= 1
        if connection.is_open:
            self._open.add(connection)
            connection.on_free = self.returned
        else:
            self._call_next()
        return connection

    async def _turn(self) -> None:
        """Wait until a connection is free or another may be made; somebody else may be quicker to take it."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except BaseException:
            if turn.cancelled():
                with suppress(ValueError):
                    self._waiting.remove(turn)
            else:
                self._call_next()
            raise

    def returned(self, connection: Connection) -> None:
        """Take back a connection that can carry another request, or forget one that is lost."""
        if not connection.is_open:
            self._open.discard(connection)
            self._free.pop(connection, None)
            self._call_next()
        elif connection.free_since - connection.made_at > MAX_AGE or len(self._free) >= IDLE_PER_ORIGIN:
            connection.close()
            return
        else:
            self._free[connection] = None
            self._call_next()
        self._on_change(self)

    def sweep(self, before: float) -> None:
        """Close the connections that have been idle since `before`, a time of the event loop's clock."""
        while self._free:
            connection = next(iter(self._free))
            if connection.free_since >= before:
                break
            del self._free[connection]
            connection.close()

    def close(self) -> None:
        """Close all connections, also those in use."""
        for connection in tuple(self._open):
            connection.close()

    def _call_next(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return


class ConnectionPools:
    """A connection pool for each origin. Needs a running event loop."""

    def __init__(self, *, per_origin: int = CONNECTIONS_PER_ORIGIN, max_origins: int = MAX_ORIGINS) -> None:
        self._loop = asyncio.get_running_loop()
        self._per_origin = per_origin
        self._max_origins = max_origins
        self._pools: OrderedDict[Origin, OriginPool] = OrderedDict()  # in the order in which they were made
        self._sweeper: asyncio.TimerHandle | None = None
        self._all_gone: asyncio.Future[None] | None = None

    def of(self, origin: Origin) -> OriginPool:
        pool = self._pools.get(origin)
        if pool is None:
            if len(self._pools) >= self._max_origins:
                self._drop_idle()
            pool = self._pools[origin] = OriginPool(origin, self._per_origin, self._on_change)
        return pool

    def __len__(self) -> int:
        """The number of connections to all origins."""
        return sum(map(len, self._pools.values()))

    def _drop_idle(self) -> None:
        """Forget the oldest pools, as many as needed, and close their connections; a pool with one in use stays."""
        for origin, pool in tuple(self._pools.items()):
            if len(self._pools) < self._max_origins:
                break
            if len(pool) == pool.idle:
                del self._pools[origin]
                pool.close()

    def _on_change(self, pool: OriginPool) -> None:
        """Schedule a sweep for a pool with idle connections, or end `close` once all connections are gone."""
        if self._all_gone is not None:
            if not len(self) and not self._all_gone.done():
                self._all_gone.set_result(None)
        elif self._sweeper is None and pool.idle:
            self._sweeper = self._loop.call_later(IDLE_FOR / 2, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        before = self._loop.time() - IDLE_FOR
        for pool in self._pools.values():
            pool.sweep(before)
        if any(pool.idle for pool in self._pools.values()):
            self._sweeper = self._loop.call_later(IDLE_FOR / 2, self._sweep)

    async def close(self) -> None:
        """Close all connections, and wait up to `CLOSE_TIMEOUT` until they are gone."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for pool in self._pools.values():
            pool.close()
        self._all_gone = self._loop.create_future()
        if len(self):
            await asyncio.wait((self._all_gone,), timeout=CLOSE_TIMEOUT)
