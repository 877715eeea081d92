"""What exists between the lifespan's start and its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from pydantic import SecretStr, ValidationError

from .bridge import RequestBridge, SharedBridge
from .cluster.rate_limits import RateLimits
from .credentials import ClientKeys
from .errors import ConfigurationError, PoolShutdown, SettingsError
from .exchange import Engine
from .exchange.limits import Limits
from .mcp import MCPConnections, MCPProxyBuilder, MCPTools, SettingsProxyBuilder
from .money import Prices
from .observability import InterceptionLines, Metrics
from .observability.console import console
from .pool import CachedBridgePool
from .principal import Principal
from .process.garbage import RestrainedCollector
from .process.termination import Termination
from .providers import Provider, build_providers
from .providers.request_headers import RequestHeaders
from .providers.source import ProviderSource
from .recorder import Recorder
from .recorder.fanout import FanoutRecorder, RecorderFactory
from .recorder.null import NullRecorder
from .settings import Settings, explain, warn_of_base_urls
from .upstream import UpstreamClient

if TYPE_CHECKING:
    from .cluster.redis import SharedRedis
    from .cluster.version_watch import VersionWatch
    from .recorder.database import Database

logger = logging.getLogger(__name__)

LOAD_TIMEOUT = 30.0
"""Seconds that an app's settings or its source of providers may take to answer, at the start and at a reload."""
ONLY_AT_START = ("recorder", "pool", "memory", "gc_freeze", "log_format", "redis_url", "redis_prefix")
"""Settings that a reload leaves as they were."""

Pool: TypeAlias = CachedBridgePool[RequestBridge, Provider]
T = TypeVar("T")


@dataclass(slots=True)
class Parts:
    """What an app gave to `AIBridge`; `replaced` in tests."""

    settings: Settings | Callable[[], Settings] | None
    recorder: Recorder | RecorderFactory | Sequence[Recorder | RecorderFactory] | None
    mcp: MCPProxyBuilder | None
    source: ProviderSource | None
    private_headers: frozenset[bytes]
    """What the app's own principal dependency reads, in lower case."""
    takes_client_keys: bool
    """Whether the settings' client keys tell who calls."""


@dataclass(frozen=True, slots=True)
class ReloadedProvider:
    name: str
    type: str
    status: str
    """`enabled` or `disabled`."""


@dataclass(frozen=True, slots=True)
class Reload:
    """What a reload did."""

    provider_version: int
    providers: list[ReloadedProvider]
    retired_bridges: int


class Runtime:
    """Pool, recorder, limits and connections of one run. Made by `start`."""

    def __init__(self, parts: Parts, metrics: Metrics, settings: Settings, stack: AsyncExitStack) -> None:
        self.loop = asyncio.get_running_loop()
        self._parts = parts
        self._metrics = metrics
        self._stack = stack
        self._reloading = asyncio.Lock()
        self._has_ended = False
        self._drained: asyncio.Future[None] | None = None
        # What a reload changes, all of it in `_apply`.
        self.settings = settings
        self.keys = ClientKeys(settings.client_keys)
        self._builder = parts.mcp or SettingsProxyBuilder(settings.mcp_servers)
        self._connections: MCPConnections | None = None
        self.redis: SharedRedis | None = None
        self.recorder: Recorder
        self.versions: VersionWatch | None
        """Where the recorder has a database: what tells this worker of changes made by others."""
        self.pool: Pool
        self._engine: Engine

    @classmethod
    async def start(cls, parts: Parts, metrics: Metrics, *, serves: bool) -> Runtime:
        """Start everything; `serves` says that an app does, rather than a script that borrows a bridge.

        Raises `SettingsError`, and what a recorder's or a source's start raises; nothing is left behind then.
        """
        settings = await _read_settings(parts, in_thread=False)
        async with AsyncExitStack() as stack:
            self = cls(parts, metrics, settings, stack)
            shown = stack.enter_context(console(settings.log_format)) if serves else None
            client = await stack.enter_async_context(UpstreamClient())
            if settings.redis_url is not None:
                self.redis = await stack.enter_async_context(_redis(settings.redis_url, settings.redis_prefix))
            self.recorder = recorder = _recorder(settings, parts.recorder)
            if isinstance(recorder, AbstractAsyncContextManager):
                await stack.enter_async_context(recorder)
            self.versions = await stack.enter_async_context(_followed(recorder))
            prices = Prices.wanted(settings.prices)
            if prices is not None:
                # Meanwhile, the app starts.
                prices.load()
                stack.push_async_callback(prices.aclose)
            limits = Limits(settings.limits)
            rates = RateLimits(settings.limits, self.redis, alone=metrics.decided_alone)
            stack.push_async_callback(rates.aclose)
            self._engine = Engine(
                client=client,
                recorder=recorder,
                metrics=metrics,
                limits=limits,
                rates=rates,
                max_body_size=settings.max_body_size,
                max_bodies=settings.memory.bodies,
                max_text=settings.recorder.max_text,
                capture_content=settings.recorder.capture_content,
                lines=InterceptionLines(settings.log_format, shown),
                request_headers=self._request_headers(settings),
                refuse_foreign_ids=settings.foreign_ids == "refuse",
                prices=prices,
            )
            self.pool = CachedBridgePool(
                self._build_bridge,
                await _load_providers(parts, settings, ()),
                max_items=settings.pool.max_items,
                ttl=settings.pool.ttl,
                drain_timeout=settings.pool.drain_timeout,
                waiting_room=limits,
                built=metrics.built,
            )
            _warn_of_what_is_missing(settings, self.pool.providers)
            if parts.takes_client_keys and serves and not settings.client_keys:
                logger.warning(
                    "nobody can call: set AIBRIDGE_CLIENT_KEYS__<INITIATOR>, or give AIBridge(principal=...) a "
                    "dependency"
                )
            if parts.mcp is not None or settings.mcp_servers:
                self._connections = await stack.enter_async_context(MCPConnections())
            stack.push_async_callback(self._engine.background.aclose)
            stack.push_async_callback(self._shut_pool_down)
            stack.enter_context(Termination(self.drain))
            if settings.gc_freeze:
                stack.enter_context(RestrainedCollector())
            self._stack = stack.pop_all()
        return self

    async def aclose(self) -> None:
        """End it all. Until that is over, requests still find the pool, and hear from it that it shuts down."""
        self._has_ended = True
        await self._stack.aclose()

    async def _shut_pool_down(self) -> None:
        await self.pool.shutdown(self.settings.shutdown_grace)

    def drain(self) -> None:
        """Take no more work, and let what runs have the shutdown's grace."""
        if self._drained is None:
            logger.info("draining: no more work is taken")
            self._drained = asyncio.ensure_future(self._shut_pool_down())

    def unready(self) -> str | None:
        """Why no work can be taken now; None where it can."""
        if self._drained is not None or self._has_ended:
            return "shutting down"
        if not getattr(self.recorder, "available", True):
            return "records cannot be written"
        return None

    def components(self) -> dict[str, str]:
        """The state of what this process depends on, for `/readyz?verbose`."""
        found = {"recorder": "ok" if getattr(self.recorder, "available", True) else "away"}
        if self.redis is not None:
            found["redis"] = "ok" if self.redis.available else "away"
        prices = self._engine.prices
        if prices is not None:
            missing = len(prices.unpriced)
            found["prices"] = f"models in use without a price: {missing}" if missing else "ok"
        return found

    async def readable(self) -> object:
        """What can be asked for records, if anything."""
        recorder = self.recorder
        return await recorder.store() if isinstance(recorder, FanoutRecorder) else recorder

    async def database(self) -> Database | None:
        """The recorder's database; None where records go elsewhere, or nowhere."""
        database: Database | None = getattr(await self.readable(), "database", None)
        return database

    # Reloads

    async def reload(self) -> Reload:
        """Read all settings again, validate them as a whole, then apply them. Running requests are not touched.

        Raises `SettingsError`, what the app's source raises, and `PoolShutdown` where the end came first: nothing has
        changed then.
        """
        async with self._reloading:
            try:
                settings = await _read_settings(self._parts, in_thread=True)
                providers = await _load_providers(self._parts, settings, self.pool.providers)
                await self._connect_tools(settings)
                self._check_not_ended()
            except BaseException as error:
                outcome = "refused" if isinstance(error, SettingsError) else "failed"
                self._metrics.reloaded(outcome)
                logger.warning("Settings not reloaded: %s", error if outcome == "refused" else type(error).__name__)
                raise
            _warn_of_what_is_missing(settings, providers)
            retired = self._apply(settings, providers)
            self._metrics.reloaded("applied")
            return Reload(
                provider_version=self.pool.provider_version,
                providers=[ReloadedProvider(one.name, one.type, one.status) for one in providers],
                retired_bridges=retired,
            )

    async def _connect_tools(self, settings: Settings) -> None:
        """Make what the sessions with MCP servers share, where there were none until now."""
        if self._connections is not None or self._parts.mcp is not None or not settings.mcp_servers:
            return
        self._check_not_ended()
        connections = MCPConnections()
        await connections.__aenter__()
        if self._has_ended:
            await connections.__aexit__(None, None, None)
            raise PoolShutdown
        self._stack.push_async_exit(connections)
        # At the end bridges close first: their sessions need the connections for that.
        self._stack.push_async_callback(self._shut_pool_down)
        self._connections = connections

    def _check_not_ended(self) -> None:
        if self.unready() == "shutting down":
            raise PoolShutdown

    def _apply(self, settings: Settings, providers: Sequence[Provider]) -> int:
        kept = {name: getattr(self.settings, name) for name in ONLY_AT_START}
        changed = [name for name, value in kept.items() if getattr(settings, name) != value]
        if changed:
            logger.warning("changed, but only in force after a restart: %s", ", ".join(changed))
        self.settings = settings.model_copy(update=kept)
        self.keys = ClientKeys(settings.client_keys)
        engine = self._engine
        engine.limits.apply(settings.limits)
        engine.rates.apply(settings.limits)
        engine.max_body_size = settings.max_body_size
        if engine.prices is not None:
            engine.prices.apply(settings.prices)
        elif settings.prices:
            engine.prices = Prices(settings.prices, listed=False)
        engine.request_headers = self._request_headers(settings)
        if self._parts.mcp is None:
            self._builder = SettingsProxyBuilder(settings.mcp_servers)
        return self.pool.replace_providers(providers)

    def _request_headers(self, settings: Settings) -> RequestHeaders:
        named = frozenset(name.lower().encode("latin-1") for name in settings.private_headers)
        return RequestHeaders(forwarded=settings.forward_headers, private=self._parts.private_headers | named)

    # Bridges

    def _build_bridge(self, principal: Principal, providers: tuple[Provider, ...]) -> SharedBridge:
        tools = None if self._connections is None else MCPTools(self._builder, principal, self._connections)
        return SharedBridge(principal, providers, self._engine, tools, self.pool.acquire)


async def _read_settings(parts: Parts, *, in_thread: bool) -> Settings:
    def read() -> Settings:
        try:
            return read_settings(parts.settings)
        except ValidationError as error:
            raise SettingsError(explain(error)) from None

    return await _in_time(asyncio.to_thread(read), "the settings") if in_thread else read()


def read_settings(given: Settings | Callable[[], Settings] | None) -> Settings:
    if isinstance(given, Settings):
        return given
    return Settings.load() if given is None else given()


async def _load_providers(parts: Parts, settings: Settings, previous: Sequence[Provider]) -> Sequence[Provider]:
    if parts.source is None:
        return build_providers(settings.providers, previous)
    providers = await _in_time(parts.source.load(), "the provider source")
    names = [provider.name for provider in providers]
    if len(set(names)) < len(names):
        raise SettingsError(f"the provider source gave two providers of the same name: {sorted(names)}")
    before = {provider.name: provider for provider in previous}
    for provider in providers:
        if (old := before.get(provider.name)) is not None and old is not provider:
            provider.take_over(old)
    return providers


async def _in_time(work: Awaitable[T], what: str) -> T:
    """The result, or `SettingsError` after `LOAD_TIMEOUT`. Work that ignores its cancellation is left behind."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait((task,), timeout=LOAD_TIMEOUT)
        if task.done():
            if task.cancelled():
                raise SettingsError(f"{what} gave up: it was cancelled from within")
            return task.result()
        raise SettingsError(f"{what} did not answer within {LOAD_TIMEOUT:g} s")
    finally:
        if not task.done():
            task.cancel()
            task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())


def _warn_of_what_is_missing(settings: Settings, providers: Sequence[Provider]) -> None:
    warn_of_base_urls(settings.providers)
    if not any(provider.enabled for provider in providers):
        logger.warning(
            "no provider is configured, so every request will get 404: set AIBRIDGE_PROVIDERS__OPENAI__API_KEY or "
            "AIBRIDGE_PROVIDERS__ANTHROPIC__API_KEY (OPENAI_API_KEY alone configures no provider)"
        )


def _recorder(
    settings: Settings, given: Recorder | RecorderFactory | Sequence[Recorder | RecorderFactory] | None
) -> Recorder:
    capture = settings.recorder.capture_content
    if given is not None:
        if isinstance(given, Recorder) and capture:
            return given
        return FanoutRecorder(*given if isinstance(given, Sequence) else (given,), capture_content=capture)
    if not settings.recorder.enabled:
        return NullRecorder()
    from .recorder.sql import SQLRecorder  # a fifth of a second, which an app with a recorder of its own need not wait

    return SQLRecorder(
        settings.recorder.url.get_secret_value(),
        capture_content=capture,
        retention=settings.recorder.retention,
        max_text=settings.recorder.max_text,
    )


def _redis(url: SecretStr, prefix: str) -> SharedRedis:
    from .cluster.redis import SharedRedis  # most apps have no Redis

    return SharedRedis(url.get_secret_value(), prefix=prefix)


@asynccontextmanager
async def _followed(recorder: Recorder) -> AsyncIterator[VersionWatch | None]:
    database: Database | None = getattr(recorder, "database", None)
    if database is None:
        yield None
        return
    from .cluster.version_watch import VersionWatch

    async with VersionWatch(database) as versions:
        yield versions


def not_running() -> ConfigurationError:
    return ConfigurationError(
        "aibridge is not running: its lifespan has not been entered. It comes with "
        "app.include_router(aibridge.router) on the app that the server runs; a sub-app that is mounted has "
        "no lifespan of its own, so give the outer app lifespan=aibridge.lifespan. In tests use "
        "'with TestClient(app)'."
    )
