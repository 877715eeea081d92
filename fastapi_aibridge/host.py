"""The host: starts and ends the runtime, and answers the routers' questions about it."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from starlette.types import Scope

from .errors import ConfigurationError, GatewayError, RecorderUnavailable
from .loading import read_settings
from .observability import Metrics
from .observability.multiprocess import (
    Mirror,
    check_multiprocess,
    multiprocess_wanted,
    registry_of_all,
    registry_of_one,
    set_up,
)
from .observability.wrong_keys import WrongKeys
from .parts import Parts, not_running
from .principal import Principal
from .recorder import InterceptionStore, Recorder
from .recorder.usage import UsageStore
from .settings import Settings

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Metric

    from .providers.provider import Provider
    from .runtime import Pool, Runtime

logger = logging.getLogger(__name__)


class Host:
    """Keeps the runtime alive while an app's lifespan or a script's `bridge` block needs it."""

    def __init__(self, parts: Parts, registry: CollectorRegistry | None) -> None:
        self._parts = parts
        self._shared = set_up(wanted=multiprocess_wanted(parts.settings))
        self._metrics = Metrics(registry)
        self._metrics.add(self._collect)
        self.wrong_keys = WrongKeys(self._metrics)
        # The mutable state
        self._runtime: Runtime | None = None
        self._mirroring = AsyncExitStack()
        self._apps = 0
        self._blocks = 0
        self._lock: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None  # with its loop

    def _collect(self) -> Iterator[Metric]:
        """Yield the metrics that are read from the running parts at each scrape."""
        from .observability.collectors import (
            pool_metrics,
            provider_metrics,
            recorder_metrics,
            redis_metrics,
            worker_metrics,
        )

        runtime = self._runtime
        yield from provider_metrics(self.providers())
        yield from recorder_metrics(runtime and runtime.recorder)
        if runtime is not None:
            yield from pool_metrics(runtime.pool.metrics())
            yield from worker_metrics(
                runtime.config_version, runtime.changes_unseen_for, keeps_old_settings=runtime.keeps_old_settings
            )
            if runtime.shared.redis is not None:
                yield from redis_metrics(runtime.shared.redis)

    # Start and end

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Keep the runtime while an app runs. The last app to end closes it, even if a `borrowed` block is open."""
        loop = self._check_loop()
        self._apps += 1
        try:
            async with self._entering(loop):
                await self._start(serves=True)
            yield
        finally:
            try:
                async with self._entering(loop):
                    if self._apps == 1:
                        await self._end()
            finally:
                self._apps -= 1  # last: until the end is over, `borrowed` finds the pool, which refuses

    @asynccontextmanager
    async def borrowed(self) -> AsyncIterator[Pool]:
        """Lend the pool to a block outside of requests. If no app runs, the last block to end closes the runtime."""
        loop = self._check_loop()
        if self._apps and self._runtime is not None:
            yield self._runtime.pool
            return
        async with self._entering(loop):  # if an app is starting, this waits until it has started
            if not self._apps:
                await self._start(serves=False)
            runtime = self.runtime
            self._blocks += 1
        try:
            yield runtime.pool
        finally:
            async with self._entering(loop):
                if self._runtime is runtime:
                    self._blocks -= 1
                    if not self._blocks and not self._apps:
                        await self._end()

    async def _start(self, *, serves: bool) -> None:
        if self._runtime is None:
            from .runtime import Runtime  # loads the engine, which setting up an app does not need

            self._runtime = await Runtime.start(self._parts, self._metrics, serves=serves)
            check_multiprocess(self._runtime.settings, self._shared)
            if self._shared is not None:
                await self._mirroring.enter_async_context(Mirror(self._metrics.collectors).looking())
            self._blocks = 0

    async def _end(self) -> None:
        if self._runtime is not None:
            try:
                await self._runtime.aclose()
            finally:
                await self._mirroring.aclose()
                self._runtime = None

    def _entering(self, loop: asyncio.AbstractEventLoop) -> asyncio.Lock:
        """Return the lock held during start and end. It belongs to one event loop, so a new loop gets a new one."""
        if self._lock is None or self._lock[0] is not loop:
            self._lock = (loop, asyncio.Lock())
        return self._lock[1]

    def _check_loop(self) -> asyncio.AbstractEventLoop:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise ConfigurationError(
                "fastapi_aibridge needs asyncio, and no event loop of asyncio runs here; with hypercorn that is "
                "--worker-class asyncio or uvloop, in tests anyio's backend 'asyncio'"
            ) from None
        before = self._lock[0] if self._lock is not None else loop
        if before is not loop:
            if not before.is_closed():
                if self._runtime is not None or self._apps:
                    raise ConfigurationError(
                        "this AIBridge already runs in another event loop; make one AIBridge for each app"
                    )
            else:
                self._runtime, self._apps, self._blocks = None, 0, 0  # the old loop was closed without ending them
        return loop

    @contextmanager
    def replaced(self, settings: Callable[[Settings], Settings], recorder: Recorder) -> Iterator[None]:
        """Replace settings and recorder, and drop the provider source, for runs that start within the block.

        `settings` gets the settings as read and returns those to use. Made for tests:
        `fastapi_aibridge.testing.override_providers`.
        """
        parts = self._parts
        before = parts.settings, parts.recorder, parts.source

        def read() -> Settings:
            return settings(read_settings(before[0]))

        parts.settings, parts.recorder, parts.source = read, recorder, None
        try:
            yield
        finally:
            parts.settings, parts.recorder, parts.source = before

    # The runtime

    @property
    def runs(self) -> bool:
        return self._runtime is not None

    @property
    def runtime(self) -> Runtime:
        """The running runtime. Raises `ConfigurationError` outside of the lifespan."""
        if self._runtime is None:
            raise not_running()
        return self._runtime

    # For the routers

    @property
    def pool(self) -> Pool:
        return self.runtime.pool

    @property
    def registry(self) -> CollectorRegistry:
        return self._metrics.registry

    async def exposed(self, worker: str | None) -> CollectorRegistry | None:
        """Return the metrics of a worker by its id; None if they cannot be read from here. Without an id, return those
        of all workers of this server if they share them, else of this one.
        """
        if not worker:
            return self._metrics.registry if self._shared is None else registry_of_all(self._shared)
        found = next((one for one in await self.runtime.reloads.workers() if one.id == worker), None)
        if found is None or found.host != socket.gethostname():
            return None
        if found.pid == os.getpid():
            return self._metrics.registry
        return None if self._shared is None else registry_of_one(self._shared, found.pid)

    def unready(self) -> str | None:
        """Return the reason why no work can be taken now; None if it can."""
        return "not running" if self._runtime is None else self._runtime.unready()

    def components(self) -> dict[str, str]:
        """Return each part that the process depends on, with `ok` or its problem."""
        return {} if self._runtime is None else self._runtime.components()

    def providers(self) -> Sequence[Provider]:
        return () if self._runtime is None else self._runtime.pool.providers

    async def store(self) -> InterceptionStore | None:
        """Return the recorder if it can be read back, else None."""
        readable = await self.runtime.readable()
        return readable if isinstance(readable, InterceptionStore) else None

    async def usage_store(self) -> UsageStore | None:
        """Return the recorder if it can add up its records, else None."""
        readable = await self.runtime.readable()
        return readable if isinstance(readable, UsageStore) else None

    def known_principal(self, token: bytes | None) -> Principal | None:
        """Return the principal of a built-in client key, if it is known without waiting; else None."""
        return self.runtime.keys.principal(token)

    async def find_principal(self, scope: Scope, token: bytes | None) -> Principal | None:
        """Look up the principal of a key. An unknown key is counted, and None is returned once the request may be
        refused. Raises `GatewayError` if the look-up fails.
        """
        if not token:
            return None
        if (managed := self.runtime.managed_keys) is not None:
            try:
                if (principal := await managed.cache.find(token)) is not None:
                    return principal
            except RecorderUnavailable as error:
                logger.warning("%s", error)
                raise GatewayError(
                    503,
                    "unavailable",
                    "the gateway cannot look up who calls now; try again",
                    headers={"retry-after": "5"},
                ) from None
        await self.wrong_keys.note(scope, "client")
        return None

    def refused(self, code: str) -> None:
        """Count a refused request that no bridge has seen."""
        self._metrics.refused(code)
