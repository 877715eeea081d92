"""The runtime: everything that exists only between the start and the end of the lifespan."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from .bridge import RequestBridge
from .cluster.alone import OwnReloads
from .cluster.managed_form import BrokenEntry, Kind, with_managed
from .cluster.rate_limits import RateLimits
from .cluster.shared_state import SharedState
from .credentials import ClientKeys
from .errors import PoolShutdown, SettingsError
from .exchange.body_budget import Holding
from .exchange.engine import Engine
from .exchange.limits import Limits
from .loading import load_providers, read_settings, read_settings_anew, warn_of_what_is_missing
from .mcp.builder import MCPProxyBuilder, SettingsProxyBuilder
from .mcp.connections import MCPConnections
from .mcp.mcp_tools import MCPTools
from .money.budgets import Budgets
from .money.prices import Prices
from .observability import InterceptionLines, Metrics
from .observability.console import console
from .parts import Parts, Reload, ReloadedProvider, managed_settings_of
from .pool.pool import CachedBridgePool
from .principal import Principal
from .process.garbage import RestrainedCollector
from .process.termination import Termination
from .providers.provider import Provider
from .providers.request_headers import RequestHeaders
from .recorder import Recorder
from .recorder.configured import configured_recorder
from .recorder.fanout import FanoutRecorder
from .recorder.text import cut, storable
from .settings import Settings
from .shared_bridge import SharedBridge
from .upstream.client import UpstreamClient

if TYPE_CHECKING:
    from .cluster.managed_keys import ManagedKeys
    from .cluster.managed_settings import ManagedSettings
    from .cluster.reloads import SharedReloads
    from .cluster.version_watch import VersionWatch
    from .recorder.database import Database
    from .recorder.presence import Presence

logger = logging.getLogger(__name__)

ONLY_AT_START = (
    "recorder", "pool", "gc_freeze", "log_format", "redis_url", "redis_prefix", "secret_keys", "managed",
)  # fmt: skip
"""Settings that a reload does not change; they take effect after a restart."""

Pool: TypeAlias = CachedBridgePool[RequestBridge, Provider]


@dataclass(frozen=True, slots=True)
class _Loaded:
    """The settings and providers that a start or a reload has read."""

    settings: Settings
    """The settings, with the providers and MCP servers of the database added."""
    fixed: frozenset[tuple[str, str]]
    """Kind and name of each provider and MCP server that the settings define without the database."""
    broken: Sequence[BrokenEntry]
    providers: Sequence[Provider]


class Runtime:
    """The pool, recorder, limits and connections of one run. Made by `start`."""

    def __init__(self, parts: Parts, metrics: Metrics, settings: Settings, stack: AsyncExitStack) -> None:
        self.loop = asyncio.get_running_loop()
        self._parts = parts
        self._metrics = metrics
        self._stack = stack
        self._has_ended = False
        self._drained: asyncio.Future[None] | None = None
        self.managed_settings: ManagedSettings | None = None
        # State that a reload changes, all of it in `_apply`.
        self.settings = settings
        self._broken: Sequence[BrokenEntry] = ()
        self._fixed: frozenset[tuple[str, str]] = frozenset()
        self.managed_keys: ManagedKeys | None = None
        """The client keys of the database; None unless settings are managed and callers use client keys."""
        self.keys = ClientKeys(settings.client_keys)
        self._builder = self._proxy_builder(settings)
        self._connections: MCPConnections | None = None
        self.shared: SharedState
        self.recorder: Recorder
        self.versions: VersionWatch | None = None
        """Notices changes made by other workers; None if the recorder has no database."""
        self.pool: Pool
        self.budgets: Budgets
        self._engine: Engine
        self.reloads: OwnReloads[_Loaded, Reload] | SharedReloads[_Loaded, Reload]

    @classmethod
    async def start(cls, parts: Parts, metrics: Metrics, *, serves: bool) -> Runtime:
        """Start everything. `serves` is true for an app, false for a script that borrows a bridge.

        Raises `SettingsError`, and what the start of a recorder or provider source raises. Everything that was started
        before the error is closed again.
        """
        begun = time.monotonic()
        settings = read_settings(parts.settings)
        async with AsyncExitStack() as stack:
            self = cls(parts, metrics, settings, stack)
            shown = stack.enter_context(console(settings.log_format)) if serves else None
            client = await stack.enter_async_context(UpstreamClient())
            self.shared = shared = await stack.enter_async_context(SharedState(settings))
            self.recorder = recorder = configured_recorder(settings.recorder, parts.recorder)
            if isinstance(recorder, AbstractAsyncContextManager):
                await stack.enter_async_context(recorder)
            self.managed_settings = managed_settings_of(recorder, settings) if settings.managed else None
            prices = Prices.wanted(settings.prices)
            if prices is not None:
                prices.load()  # while the app starts
                stack.push_async_callback(prices.aclose)
            await self._join()
            loaded = await self._read(settings, ())
            settings = self._take(loaded)
            limits = Limits(settings.limits)
            rates = RateLimits(settings.limits, shared.redis, alone=metrics.decided_alone)
            stack.push_async_callback(rates.aclose)
            budgets = Budgets(recorder, prices, metrics, parts.on_budget)
            self.budgets = await stack.enter_async_context(budgets.kept(settings, self.versions))
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
                budgets=self.budgets,
                shared_memory=shared.memory,
            )
            self.pool = CachedBridgePool(
                self._build_bridge,
                loaded.providers,
                max_items=settings.pool.max_items,
                ttl=settings.pool.ttl,
                drain_timeout=settings.pool.drain_timeout,
                waiting_room=limits,
                built=metrics.built,
            )
            shared.follow_outages(lambda: self.pool.providers)
            shared.when_erased(self._engine.tool_memory.forget)
            warn_of_what_is_missing(settings, self.pool.providers)
            if settings.managed and parts.takes_client_keys:
                from .cluster.managed_keys import managed_keys  # loads SQLAlchemy

                database = getattr(recorder, "database", None)
                self.managed_keys = await stack.enter_async_context(
                    managed_keys(database, self.versions, self.pool.cut_off)
                )
                self.keys = self._client_keys(settings)
            elif parts.takes_client_keys and serves and not settings.client_keys:
                logger.warning(
                    "nobody can call: set AIBRIDGE_CLIENT_KEYS__<INITIATOR>, or give AIBridge(principal=...) a "
                    "dependency"
                )
            shared.warn_of_what_is_missing(has_tools=parts.mcp is not None or bool(settings.mcp_servers))
            if parts.mcp is not None or settings.mcp_servers:
                self._connections = await stack.enter_async_context(MCPConnections())
            stack.push_async_callback(self._engine.background.aclose)
            stack.push_async_callback(self._shut_pool_down)
            stack.enter_context(Termination(self.drain))
            if settings.gc_freeze:
                stack.enter_context(RestrainedCollector())
            await self.reloads.start(time.monotonic() - begun)
            self._stack = stack.pop_all()
        return self

    async def _join(self) -> None:
        """Join the workers that share the recorder's database, if it has one."""
        own = self._load, self._apply, lambda: self.pool.provider_version
        database: Database | None = getattr(self.recorder, "database", None)
        presence: Presence | None = getattr(self.recorder, "presence", None)
        if database is None or presence is None:
            self.reloads = OwnReloads(*own)
            return
        from .cluster.reloads import SharedReloads  # loads SQLAlchemy, which an app without records does without
        from .cluster.version_watch import VersionWatch
        from .cluster.workers import Workers

        workers = Workers(database, presence)
        await workers.join()
        self.versions = await self._stack.enter_async_context(VersionWatch(database, self.shared.redis))
        self.reloads = SharedReloads(database, self.versions, workers, *own)

    async def aclose(self) -> None:
        """Close everything. Until that is done, requests find the pool and get its `PoolShutdown`."""
        self._has_ended = True
        await self._stack.aclose()

    async def _shut_pool_down(self) -> None:
        await self.pool.shutdown(self.settings.shutdown_grace)

    def drain(self) -> None:
        """Refuse new requests, and give running ones the shutdown's grace."""
        if self._drained is None:
            logger.info("draining: no more work is taken")
            self._drained = asyncio.ensure_future(self._shut_pool_down())

    def unready(self) -> str | None:
        """Return why no requests can be served now, None if they can."""
        if self._drained is not None or self._has_ended:
            return "shutting down"
        if not getattr(self.recorder, "available", True):
            return "records cannot be written"
        return None

    def components(self) -> dict[str, str]:
        """Return the state of each component that this process depends on, for `/readyz?verbose`."""
        found = {"recorder": "ok" if getattr(self.recorder, "available", True) else "away"}
        found["settings"] = "refused, those before are in force" if self.keeps_old_settings else "ok"
        if self.versions is not None:
            found["changes"] = "cannot be seen" if self.changes_unseen_for else "ok"
        found |= self.shared.components(has_tools=self._connections is not None)
        prices = self._engine.prices
        if prices is not None:
            missing = len(prices.unpriced)
            found["prices"] = f"models in use without a price: {missing}" if missing else "ok"
        return found

    def holding(self, initiator_id: str) -> Holding:
        """Make a holding of memory for an answer of the gateway's own."""
        return self._engine.bodies.holding(initiator_id)

    async def readable(self) -> object:
        """Return the recorder to read records from. It need not be readable: callers check for the protocol."""
        recorder = self.recorder
        return await recorder.store() if isinstance(recorder, FanoutRecorder) else recorder

    async def database(self) -> Database | None:
        """Return the recorder's database, None if records go elsewhere or nowhere."""
        database: Database | None = getattr(await self.readable(), "database", None)
        return database

    def _client_keys(self, settings: Settings) -> ClientKeys:
        if self.managed_keys is None:
            return ClientKeys(settings.client_keys)
        return ClientKeys(settings.client_keys, self.managed_keys.cache.known)

    # Reloads

    async def reload(self) -> Reload:
        """Read all settings again, validate them as a whole, then apply them, here and in all workers that share the
        recorder's database. Running requests are not affected.

        Raises `SettingsError`, what the app's provider source raises, `PoolShutdown` if the app stops meanwhile, and
        `RecorderUnavailable` if the other workers cannot be told. After an error nothing has changed.
        """
        applied, workers = await self.reloads.reload()
        return replace(applied, workers=workers)

    @property
    def config_version(self) -> int:
        """The version of the settings in force; -1 if it is not known yet."""
        return self.reloads.version

    @property
    def keeps_old_settings(self) -> bool:
        """Whether newer settings were read but did not validate here."""
        return self.reloads.error is not None

    @property
    def changes_unseen_for(self) -> float:
        """Seconds for which changes made by other workers could not be seen; 0 while they can."""
        return 0.0 if self.versions is None else self.versions.away_for

    async def _load(self) -> _Loaded:
        try:
            loaded = await self._read(await read_settings_anew(self._parts.settings), self.pool.providers)
            self.budgets.check(loaded.settings)
            await self._connect_tools(loaded.settings)
            self._check_not_ended()
        except BaseException as error:
            outcome = "refused" if isinstance(error, SettingsError) else "failed"
            self._metrics.reloaded(outcome)
            # Shortened and made storable, because an app's own function may have written the text.
            reason = cut(storable(str(error)), 4096) if outcome == "refused" else type(error).__name__
            logger.warning("Settings not reloaded: %s", reason)
            raise
        warn_of_what_is_missing(loaded.settings, loaded.providers)
        return loaded

    async def _read(self, settings: Settings, previous: Sequence[Provider]) -> _Loaded:
        """Add the database's entries to the settings, and load the providers of both."""
        sections = ((Kind.PROVIDER.value, settings.providers), (Kind.MCP_SERVER.value, settings.mcp_servers))
        fixed = frozenset((kind, name) for kind, section in sections for name in section)
        broken: Sequence[BrokenEntry] = ()
        if (managed := self.managed_settings) is not None:
            # In a thread, because loading certificates takes long.
            settings, broken = await asyncio.to_thread(with_managed, settings, await managed.all())
        return _Loaded(settings, fixed, broken, await load_providers(self._parts.source, settings, previous))

    def _take(self, loaded: _Loaded) -> Settings:
        self.settings, self._broken, self._fixed = loaded.settings, loaded.broken, loaded.fixed
        self._builder = self._proxy_builder(loaded.settings)
        return loaded.settings

    def is_fixed(self, kind: str, name: str) -> bool:
        """Whether the settings or the app define this provider or MCP server, so that the API cannot change it."""
        own = self._parts.source if kind == Kind.PROVIDER else self._parts.mcp
        return own is not None or (kind, name) in self._fixed

    @property
    def broken_providers(self) -> Sequence[BrokenEntry]:
        """The database's providers that cannot be used."""
        return [entry for entry in self._broken if entry.kind is Kind.PROVIDER]

    async def _connect_tools(self, settings: Settings) -> None:
        """Make the connections that MCP sessions share, if these settings are the first to have MCP servers."""
        if self._connections is not None or self._parts.mcp is not None or not settings.mcp_servers:
            return
        self._check_not_ended()
        connections = MCPConnections()
        await connections.__aenter__()
        if self._has_ended:
            await connections.__aexit__(None, None, None)
            raise PoolShutdown
        self._stack.push_async_exit(connections)
        # At the end bridges close first, because their sessions need the connections to close.
        self._stack.push_async_callback(self._shut_pool_down)
        self._connections = connections

    def _check_not_ended(self) -> None:
        if self.unready() == "shutting down":
            raise PoolShutdown

    def _apply(self, loaded: _Loaded) -> Reload:
        settings, providers = loaded.settings, loaded.providers
        kept = {name: getattr(self.settings, name) for name in ONLY_AT_START}
        changed = [name for name, value in kept.items() if getattr(settings, name) != value]
        if changed:
            logger.warning("changed, but only in force after a restart: %s", ", ".join(changed))
        settings = self._take(replace(loaded, settings=settings.model_copy(update=kept)))
        self.keys = self._client_keys(settings)
        engine = self._engine
        engine.limits.apply(settings.limits)
        engine.bodies.apply(settings.memory.bodies)
        engine.rates.apply(settings.limits)
        engine.max_body_size = settings.max_body_size
        if engine.prices is not None:
            engine.prices.apply(settings.prices)
        elif settings.prices:
            engine.prices = Prices(settings.prices, listed=False)
        self.budgets.apply(settings, engine.prices)
        engine.request_headers = self._request_headers(settings)
        self.shared.watch(providers)
        retired = self.pool.replace_providers(providers)
        self._metrics.reloaded("applied")
        return Reload(
            provider_version=self.pool.provider_version,
            providers=[
                *(ReloadedProvider(one.name, one.type, one.status) for one in providers),
                *(ReloadedProvider(one.name, one.type, "error") for one in self.broken_providers),
            ],
            retired_bridges=retired,
        )

    def _proxy_builder(self, settings: Settings) -> MCPProxyBuilder:
        return self._parts.mcp or SettingsProxyBuilder(settings.mcp_servers)

    def _request_headers(self, settings: Settings) -> RequestHeaders:
        named = frozenset(name.lower().encode("latin-1") for name in settings.private_headers)
        return RequestHeaders(forwarded=settings.forward_headers, private=self._parts.private_headers | named)

    async def forget(self, initiator_id: str) -> None:
        """Delete the tool results and rate-limit counts that this process and Redis hold of an initiator.

        Raises `RedisUnavailable` if Redis cannot be reached; its data then expire within a day by themselves.
        """
        self._engine.tool_memory.forget(initiator_id)
        await self._engine.rates.erase(initiator_id)
        await self.shared.erase(initiator_id)

    # Bridges

    def _build_bridge(self, principal: Principal, providers: tuple[Provider, ...]) -> SharedBridge:
        tools = None if self._connections is None else MCPTools(self._builder, principal, self._connections)
        return SharedBridge(principal, providers, self._engine, tools, self.pool.acquire)
