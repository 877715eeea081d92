"""`AIBridge`, the plugin itself: settings in; pool, routers, lifespan and dependencies out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fastapi import APIRouter, BackgroundTasks, FastAPI, HTTPException, Request, Response, WebSocketException, status
from prometheus_client import CollectorRegistry
from pydantic import ValidationError
from starlette.requests import HTTPConnection
from starlette.types import Scope

from .bridge import RequestBridge, SharedBridge
from .credentials import ClientKeys, caller_token
from .dependencies import PrincipalResolver
from .errors import BuildTimeout, ConfigurationError, GatewayError, PoolShutdown, PrincipalError, SettingsError
from .exchange import Engine
from .exchange.limits import Limits
from .garbage import RestrainedCollector
from .guessing import WrongKeys
from .mcp import MCPConnections, MCPProxyBuilder, MCPTools, SettingsProxyBuilder
from .observability import InterceptionLines, Metrics
from .observability.console import console
from .observability.instrumentation import instrument
from .observability.metrics import PoolCollector, ProviderCollector
from .pool import CachedBridgePool, PoolMetrics
from .principal import Principal
from .providers import Provider, build_providers
from .providers.request_headers import RequestHeaders
from .providers.source import ProviderSource
from .recorder import InterceptionStore, Recorder
from .recorder.fanout import FanoutRecorder, RecorderFactory
from .recorder.null import NullRecorder
from .recorder.sql import SQLRecorder
from .recorder.usage import UsageStore
from .routers import AdminAccess, Reload, ReloadedProvider, add_admin_routes, add_gateway_route, add_health_routes
from .settings import Settings, explain, warn_of_base_urls
from .termination import Termination
from .upstream import UpstreamClient

logger = logging.getLogger(__name__)

STATE = "aibridge"
"""Where the lifespan's state holds the plugin."""

Pool = CachedBridgePool[RequestBridge, Provider]


class AIBridge:
    """An AI gateway for each principal of an app. One object for one app.

    `settings` is read from the environment unless given, as an object or as a function that is called at start and at
    each reload. `principal` and `admin` are FastAPI dependencies: who calls, and who may use the admin routes; without
    them the client keys and the admin token of the settings decide. `recorder` (one or several, or async functions
    that make one at its first use), `mcp` (each principal's MCP servers) and `providers` replace what the settings
    say, `registry` the Prometheus registry.
    """

    def __init__(
        self,
        settings: Settings | Callable[[], Settings] | None = None,
        *,
        principal: Callable[..., Any] | None = None,
        admin: Callable[..., Any] | None = None,
        recorder: Recorder | RecorderFactory | Sequence[Recorder | RecorderFactory] | None = None,
        mcp: MCPProxyBuilder | None = None,
        providers: ProviderSource | None = None,
        registry: CollectorRegistry | None = None,
    ) -> None:
        self._settings = settings
        self._recorder = recorder
        self._mcp = mcp
        self._source = providers
        self._metrics = Metrics(registry)
        self._wrong_keys = WrongKeys(self._metrics)
        self._metrics.registry.register(PoolCollector(self._counts))
        self._metrics.registry.register(ProviderCollector(self.providers))
        self.principal: Callable[..., Any] = principal or self._client_key_principal
        """The dependency that tells who calls: the key for `dependency_overrides`."""
        self._is_built_in = principal is None
        self._resolver = PrincipalResolver(self.principal)
        self._running: _Running | None = None
        self._entries = 0
        self._hosts = 0  # of the entries, those of apps
        self._entry_lock = asyncio.Lock()

        # Three routers with routes of their own: each level of inclusion costs every request some microseconds.
        self.router, self.gateway_router, self.admin_router = (APIRouter(lifespan=self.lifespan) for _ in range(3))
        for router in (self.router, self.gateway_router):
            # The busiest first: FastAPI asks one after the other, twice for each request.
            add_gateway_route(router, self, self.principal, built_in=self._is_built_in)
            add_health_routes(router, self)
        access = AdminAccess(admin, lambda: self.settings, self._wrong_keys)
        for router in (self.router, self.admin_router):
            add_admin_routes(router, self, access)

    # The lifespan

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[Mapping[str, Any]]:  # noqa: ARG002 - what FastAPI calls
        """Runs the pool. It comes with the routers; only an app that mounts a sub-app has to name it itself.

        May be entered several times, as by a router that is included twice; the last exit ends it. Raises
        `SettingsError`, and `ConfigurationError` in a second event loop.
        """
        self._hosts += 1
        try:
            async with self._entered():
                yield {STATE: self}
        finally:
            self._hosts -= 1

    @asynccontextmanager
    async def bridge(self, principal: Principal) -> AsyncIterator[RequestBridge]:
        """The principal's bridge outside of a request: for tasks, jobs and scripts. Leased while the block runs.

        Where no app runs the lifespan, the block does, and ends it unless another such block still needs it. Raises
        `PoolShutdown` while the app stops; what is under way then gets the shutdown's grace, as requests do. Raises
        what `lifespan` raises.
        """
        async with AsyncExitStack() as stack:
            if self._hosts:
                self._check_loop()
            else:
                await stack.enter_async_context(self._entered())
            yield await stack.enter_async_context(self.pool.acquire(principal))

    @asynccontextmanager
    async def _entered(self) -> AsyncIterator[None]:
        self._check_loop()
        async with self._entry_lock:
            if self._running is None:
                self._running = await self._start()
            self._entries += 1
        try:
            yield
        finally:
            async with self._entry_lock:
                self._entries -= 1
                if not self._entries:
                    try:
                        # Until it is over, requests still find the pool, and hear from it that it shuts down.
                        await self._now().stack.aclose()
                    finally:
                        self._running = None

    def _check_loop(self) -> None:
        if self._running is not None and self._running.loop is not asyncio.get_running_loop():
            raise ConfigurationError("this AIBridge already runs in another event loop; make one AIBridge for each app")

    async def _start(self) -> _Running:
        settings = self._read_settings()
        async with AsyncExitStack() as stack:
            # A script that only borrows a bridge has a terminal of its own.
            shown = stack.enter_context(console(settings.log_format)) if self._hosts else None
            client = await stack.enter_async_context(UpstreamClient())
            recorder = _recorder(settings) if self._recorder is None else _given_recorder(settings, self._recorder)
            if isinstance(recorder, AbstractAsyncContextManager):
                await stack.enter_async_context(recorder)
            limits = Limits(settings.limits)
            engine = Engine(
                client=client,
                recorder=recorder,
                metrics=self._metrics,
                limits=limits,
                max_body_size=settings.max_body_size,
                max_bodies=settings.memory.bodies,
                max_text=settings.recorder.max_text,
                capture_content=settings.recorder.capture_content,
                lines=InterceptionLines(settings.log_format, shown),
                request_headers=RequestHeaders(
                    forwarded=settings.forward_headers, private=self._private_headers(settings)
                ),
            )
            pool: Pool = CachedBridgePool(
                partial(self._build_bridge, engine),
                await self._load_providers(settings, ()),
                max_items=settings.pool.max_items,
                ttl=settings.pool.ttl,
                drain_timeout=settings.pool.drain_timeout,
            )
            self._warn_of_what_is_missing(settings, pool.providers)
            connections = await self._connect_mcp(settings, stack)
            stack.push_async_callback(pool.shutdown, settings.shutdown_grace)
            stack.enter_context(Termination(self.drain))
            if settings.gc_freeze:
                stack.enter_context(RestrainedCollector())
            return _Running(
                settings=settings,
                keys=ClientKeys(settings.client_keys),
                pool=pool,
                builder=self._mcp or SettingsProxyBuilder(settings.mcp_servers),
                connections=connections,
                recorder=recorder,
                limits=limits,
                loop=asyncio.get_running_loop(),
                stack=stack.pop_all(),
            )

    def _warn_of_what_is_missing(self, settings: Settings, providers: Sequence[Provider]) -> None:
        warn_of_base_urls(settings.providers)
        if not any(provider.enabled for provider in providers):
            logger.warning(
                "no provider is configured, so every request will get 404: set AIBRIDGE_PROVIDERS__OPENAI__API_KEY or "
                "AIBRIDGE_PROVIDERS__ANTHROPIC__API_KEY (OPENAI_API_KEY alone configures no provider)"
            )
        if self._is_built_in and self._hosts and not settings.client_keys:
            logger.warning(
                "nobody can call: set AIBRIDGE_CLIENT_KEYS__<INITIATOR>, or give AIBridge(principal=...) a dependency"
            )

    async def _connect_mcp(self, settings: Settings, stack: AsyncExitStack) -> MCPConnections | None:
        """What the MCP sessions of all bridges share; nothing, and no need of the extra, where there are no servers."""
        if self._mcp is None and not settings.mcp_servers:
            return None
        return await stack.enter_async_context(MCPConnections())

    def _build_bridge(self, engine: Engine, principal: Principal, providers: tuple[Provider, ...]) -> SharedBridge:
        running = self._now()
        tools = None if running.connections is None else MCPTools(running.builder, principal, running.connections)
        return SharedBridge(principal, providers, engine, tools, running.pool.acquire)

    def _private_headers(self, settings: Settings) -> frozenset[bytes]:
        named = (name.lower().encode("latin-1") for name in settings.private_headers)
        return self._resolver.header_names | frozenset(named)

    def _read_settings(self) -> Settings:
        try:
            return _read(self._settings)
        except ValidationError as error:
            raise SettingsError(explain(error)) from None

    async def _load_providers(self, settings: Settings, previous: Sequence[Provider]) -> Sequence[Provider]:
        if self._source is None:
            return build_providers(settings.providers, previous)
        providers = await self._source.load()
        names = [provider.name for provider in providers]
        if len(set(names)) < len(names):
            raise SettingsError(f"the provider source gave two providers of the same name: {sorted(names)}")
        before = {provider.name: provider for provider in previous}
        for provider in providers:
            if (old := before.get(provider.name)) is not None and old is not provider:
                provider.take_over(old)
        return providers

    def _now(self) -> _Running:
        if self._running is None:
            raise ConfigurationError(
                "aibridge is not running: its lifespan has not been entered. It comes with "
                "app.include_router(aibridge.router) on the app that the server runs; a sub-app that is mounted has "
                "no lifespan of its own, so give the outer app lifespan=aibridge.lifespan. In tests use "
                "'with TestClient(app)'."
            )
        return self._running

    @contextmanager
    def replaced(self, settings: Callable[[Settings], Settings], recorder: Recorder) -> Iterator[None]:
        """While the block runs, a start reads settings through this function, has this recorder and no provider source.

        Made for tests: `fastapi_aibridge.testing.override_providers`.
        """
        before = self._settings, self._recorder, self._source

        def read() -> Settings:
            return settings(_read(before[0]))

        self._settings, self._recorder, self._source = read, recorder, None
        try:
            yield
        finally:
            self._settings, self._recorder, self._source = before

    # What runs

    @property
    def running(self) -> bool:
        """Whether the lifespan has been entered."""
        return self._running is not None

    @property
    def pool(self) -> Pool:
        """The pool of bridges. Raises `ConfigurationError` outside of the lifespan."""
        return self._now().pool

    @property
    def settings(self) -> Settings:
        """The settings in force. Raises `ConfigurationError` outside of the lifespan."""
        return self._now().settings

    @property
    def registry(self) -> CollectorRegistry:
        return self._metrics.registry

    async def reload(self) -> Reload:
        """Read all settings again, validate them as a whole, then swap providers, client keys and admin token.

        Running requests are not touched. Raises `SettingsError`: then nothing has changed.
        """
        running = self._now()
        async with running.reloading:
            try:
                settings = await asyncio.to_thread(self._read_settings)
                providers = await self._load_providers(settings, running.pool.providers)
            except SettingsError:
                self._metrics.reloaded("refused")
                raise
            if self._mcp is None:
                if running.connections is None:
                    running.connections = await self._connect_mcp(settings, running.stack)
                    # At the end bridges close first: their sessions need the connections for that.
                    running.stack.push_async_callback(running.pool.shutdown, settings.shutdown_grace)
                running.builder = SettingsProxyBuilder(settings.mcp_servers)
            retired = running.pool.replace_providers(providers)
            running.settings = settings
            running.limits.apply(settings.limits)
            running.keys = ClientKeys(settings.client_keys)
            self._metrics.reloaded("applied")
            return Reload(
                provider_version=running.pool.provider_version,
                providers=[ReloadedProvider(name=one.name, type=one.type, status=one.status) for one in providers],
                retired_bridges=retired,
            )

    def drain(self) -> None:
        """Take no more work: what comes gets 503, what runs has the shutdown's grace, then streams end in an error.

        SIGTERM does this, beside what the server does. There is no way back but a new start of the lifespan.
        """
        running = self._running
        if running is not None and running.drained is None:
            logger.info("draining: no more work is taken")
            running.drained = asyncio.ensure_future(running.pool.shutdown(running.settings.shutdown_grace))

    def unready(self) -> str | None:
        """Why no work can be taken now; None where it can."""
        running = self._running
        if running is None:
            return "not running"
        if running.drained is not None:
            return "shutting down"
        if not getattr(running.recorder, "available", True):
            return "records cannot be written"
        return None

    def instrument(self, app: FastAPI) -> None:
        """Trace the app with opentelemetry-instrumentation-fastapi: one server span a request, none for the pieces of
        a stream. Does nothing for an app that is traced already, also by FastAPI itself.
        """
        instrument(app)

    def pool_metrics(self) -> PoolMetrics:
        return self.pool.metrics()

    def providers(self) -> Sequence[Provider]:
        return () if self._running is None else self._running.pool.providers

    async def store(self) -> InterceptionStore | None:
        """The recorder that can be read back. Raises what an app's recorder raises that is made for this."""
        readable = await self._readable()
        return readable if isinstance(readable, InterceptionStore) else None

    async def usage_store(self) -> UsageStore | None:
        """The recorder that can add up what it holds. Raises what `store` raises."""
        readable = await self._readable()
        return readable if isinstance(readable, UsageStore) else None

    async def _readable(self) -> object:
        recorder = self._now().recorder
        return await recorder.store() if isinstance(recorder, FanoutRecorder) else recorder

    def _counts(self) -> PoolMetrics | None:
        return None if self._running is None else self._running.pool.metrics()

    def refused(self, code: str) -> None:
        self._metrics.refused(code)

    # Who calls

    def known_principal(self, token: bytes | None) -> Principal | None:
        return self._now().keys.principal(token)

    async def unknown_key(self, scope: Scope, token: bytes | None) -> None:
        """Count a client key that nobody has; returns when the request may be refused."""
        if token:
            await self._wrong_keys.note(scope, "client")

    async def resolve_principal(
        self,
        connection: HTTPConnection,
        response: Response | None = None,
        background_tasks: BackgroundTasks | None = None,
    ) -> Principal:
        """Who calls, in a request or WebSocket of the app. Raises what the principal dependency raises."""
        return await self._resolver(connection, response, background_tasks)

    async def _client_key_principal(self, connection: HTTPConnection) -> Principal:
        token = caller_token(dict(connection.scope["headers"]))
        principal = self.known_principal(token)
        if principal is not None:
            return principal
        await self.unknown_key(connection.scope, token)
        if isinstance(connection, Request):
            raise HTTPException(401, "no valid key was given", headers={"WWW-Authenticate": "Bearer"})
        raise WebSocketException(status.WS_1008_POLICY_VIOLATION, "no valid key was given")


async def get_bridge(
    connection: HTTPConnection, response: Response, background_tasks: BackgroundTasks
) -> AsyncIterator[RequestBridge]:
    """The caller's bridge, for `Depends(get_bridge)` in any HTTP or WebSocket route of an app that has the router.

    Leased until the response, stream included, has ended. Raises `ConfigurationError` where the lifespan has not run.
    """
    aibridge = connection.scope.get("state", {}).get(STATE)
    if not isinstance(aibridge, AIBridge):
        raise ConfigurationError(
            "get_bridge found no aibridge in the lifespan's state. Call app.include_router(aibridge.router) on the app "
            "that the server runs; a sub-app that is mounted has no lifespan of its own, so give the outer app "
            "lifespan=aibridge.lifespan, or yield what that yields from your own. In tests use 'with TestClient(app)'."
        )
    try:
        lease = aibridge.pool.acquire(await aibridge.resolve_principal(connection, response, background_tasks))
        bridge = await lease.__aenter__()
    except PrincipalError as error:
        if not error.by_caller:
            raise
        if isinstance(connection, Request):
            raise HTTPException(400, str(error)) from None
        raise WebSocketException(status.WS_1008_POLICY_VIOLATION, str(error)) from None
    except (PoolShutdown, BuildTimeout) as error:
        if isinstance(connection, Request):
            raise HTTPException(503, str(error), headers={"Retry-After": "5", "Connection": "close"}) from None
        raise WebSocketException(status.WS_1012_SERVICE_RESTART, str(error)) from None
    except GatewayError as error:
        if isinstance(connection, Request):
            raise HTTPException(error.status, error.message, headers=error.headers) from None
        raise WebSocketException(status.WS_1013_TRY_AGAIN_LATER, error.message) from None
    try:
        yield bridge
    finally:
        lease.release()


@dataclass(slots=True)
class _Running:
    """What exists between the lifespan's start and its end; a reload changes settings, keys and MCP servers."""

    settings: Settings
    keys: ClientKeys
    pool: Pool
    builder: MCPProxyBuilder
    connections: MCPConnections | None
    recorder: Recorder
    limits: Limits
    loop: asyncio.AbstractEventLoop
    stack: AsyncExitStack
    reloading: asyncio.Lock = field(default_factory=asyncio.Lock)
    drained: asyncio.Future[None] | None = None


def _read(given: Settings | Callable[[], Settings] | None) -> Settings:
    if isinstance(given, Settings):
        return given
    return Settings.load() if given is None else given()


def _recorder(settings: Settings) -> Recorder:
    if not settings.recorder.enabled:
        return NullRecorder()
    return SQLRecorder(
        settings.recorder.url.get_secret_value(),
        capture_content=settings.recorder.capture_content,
        retention=settings.recorder.retention,
    )


def _given_recorder(
    settings: Settings, given: Recorder | RecorderFactory | Sequence[Recorder | RecorderFactory]
) -> Recorder:
    capture = settings.recorder.capture_content
    if isinstance(given, Recorder) and capture:
        return given
    return FanoutRecorder(*given if isinstance(given, Sequence) else (given,), capture_content=capture)
