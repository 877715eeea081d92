"""The plugin class `AIBridge` and the dependency `get_bridge`, which are what an app uses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from fastapi import (
    APIRouter,
    BackgroundTasks,
    Depends,
    FastAPI,
    HTTPException,
    Request,
    Response,
    WebSocketException,
    status,
)
from starlette.requests import HTTPConnection

from .bridge import RequestBridge
from .credentials import caller_token
from .errors import BuildTimeout, ConfigurationError, GatewayError, PoolShutdown, PrincipalError
from .fastapi_inside import FlatRouter, included_routers
from .fastapi_inside.principal_dependency import PrincipalResolver, checked
from .host import Host
from .observability.instrumentation import instrument
from .parts import Parts, Reload
from .principal import Principal
from .recorder import InterceptionStore, Recorder
from .recorder.usage import UsageStore
from .routers import (
    AdminAccess,
    add_admin_routes,
    add_audit_routes,
    add_budget_routes,
    add_client_key_routes,
    add_gateway_route,
    add_health_routes,
    add_initiator_routes,
    add_managed_routes,
    add_me_routes,
    add_worker_routes,
)
from .routers.openapi import CallerScheme, described
from .settings import Settings

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from .mcp.builder import MCPProxyBuilder
    from .money.budget_warnings import OnBudget
    from .providers.source import ProviderSource
    from .recorder.fanout import RecorderFactory
    from .runtime import Pool

_STATE = "aibridge:"
"""The prefix of names in the lifespan's state that hold a plugin."""
_ADMIN_ROUTES = (
    add_admin_routes, add_audit_routes, add_initiator_routes, add_managed_routes, add_worker_routes, add_budget_routes,
    add_client_key_routes,
)  # fmt: skip


class AIBridge:
    """An AI gateway for the users of an app, as a plugin. Make one object for each app.

    `settings` is an object, or a function called at start and at each reload; by default they are read from the
    environment. `principal` and `admin` are FastAPI dependencies that tell who calls and who may use the admin routes;
    by default the client keys and the admin token of the settings decide. `recorder` (one or several recorders, or
    async functions that make one at its first use), `mcp` (each principal's MCP servers) and `providers` replace those
    of the settings. `registry` is the Prometheus registry to use; by default the plugin has its own. `on_budget` is an
    async function that is called once when a budget reaches 80 %, and once at 100 %.
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
        on_budget: OnBudget | None = None,
    ) -> None:
        self.principal: Callable[..., Any] = principal or self._client_key_principal
        """The dependency that returns the caller's principal; tests use it as a key in `dependency_overrides`."""
        self._resolver = PrincipalResolver(self.principal)
        self._takes_client_keys = built_in = principal is None
        parts = Parts(
            settings, recorder, mcp, providers, self._resolver.header_names, takes_client_keys=built_in,
            on_budget=on_budget,
        )  # fmt: skip
        self._host = host = Host(parts, registry)

        self._admin_access = AdminAccess(admin, lambda: host.runtime.settings, host.wrong_keys)

    # Each router has its own routes, because every level of inclusion costs each request some microseconds. They are
    # made on demand: most apps include only one, and FastAPI takes long to make routes.

    @cached_property
    def router(self) -> APIRouter:
        """All routes."""
        router = _Router(self)
        self._add_gateway_routes(router)
        self._add_admin_routes(router)
        return router

    @cached_property
    def gateway_router(self) -> APIRouter:
        """The routes for clients and health probes."""
        router = _Router(self)
        self._add_gateway_routes(router)
        return router

    @cached_property
    def admin_router(self) -> APIRouter:
        """The admin routes."""
        router = _Router(self)
        self._add_admin_routes(router)
        return router

    def _add_gateway_routes(self, router: APIRouter) -> None:
        # The busiest route first: FastAPI tries them in order, twice for each request.
        add_gateway_route(router, self._host, self.principal, built_in=self._takes_client_keys)
        add_me_routes(router, self._host, self.principal)
        add_health_routes(router, self._host)

    def _add_admin_routes(self, router: APIRouter) -> None:
        for add_routes in _ADMIN_ROUTES:
            add_routes(router, self._host, self._admin_access)

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[Mapping[str, Any]]:
        """Run the gateway. The routers bring this lifespan along; only an app that mounts a sub-app has to name it.

        May be entered several times, for instance by a router that is included twice; the last exit ends the run.
        Raises `SettingsError`, and `ConfigurationError` in a second event loop or outside of asyncio.
        """
        with described(app, None if self._takes_client_keys else self.principal):
            async with self._host.serving():
                yield {f"{_STATE}{id(self):x}": self}

    @asynccontextmanager
    async def bridge(self, principal: Principal) -> AsyncIterator[RequestBridge]:
        """Lease the principal's bridge outside of a request, in a task, job or script, while the block runs.

        If no app runs the lifespan, the block runs the gateway itself and ends it unless another such block still needs
        it. A block that begins while the app starts waits for the start. Raises `PoolShutdown` while the app stops; a
        block that is running then gets the shutdown's grace, as requests do. Raises what `lifespan` and `Lease` raise.
        """
        checked(principal)
        async with self._host.borrowed() as pool, pool.acquire(principal) as bridge:
            yield bridge

    async def get_bridge(
        self,
        connection: HTTPConnection,
        response: Response,
        background_tasks: BackgroundTasks,
        _: None = Depends(CallerScheme()),
    ) -> AsyncIterator[RequestBridge]:
        """The dependency `get_bridge` of this plugin, for apps with several: `Depends(aibridge.get_bridge)`."""
        async with _leased(self, connection, response, background_tasks) as bridge:
            yield bridge

    async def reload(self) -> Reload:
        """Read all settings again, validate them as a whole, then swap providers, limits, keys, tokens, MCP servers.

        All workers that share the recorder's database reload too; this waits for them for 5 seconds at most. Running
        requests are not affected. Raises `SettingsError`, what the app's provider source raises, `RecorderUnavailable`
        if the other workers cannot be told, and `PoolShutdown` if the app stops meanwhile. After an error nothing has
        changed.
        """
        return await self._host.runtime.reload()

    def drain(self) -> None:
        """Refuse new requests with 503, and end those that still run after the shutdown's grace with an error.

        A SIGTERM or SIGINT to the server does this too. Only a new start of the lifespan takes requests again.
        """
        if self._host.runs:
            self._host.runtime.drain()

    @property
    def running(self) -> bool:
        """Whether the lifespan has been entered."""
        return self._host.runs

    @property
    def pool(self) -> Pool:
        """The pool of bridges. Raises `ConfigurationError` outside of the lifespan."""
        return self._host.pool

    @property
    def settings(self) -> Settings:
        """The settings in force. Raises `ConfigurationError` outside of the lifespan."""
        return self._host.runtime.settings

    @property
    def registry(self) -> CollectorRegistry:
        return self._host.registry

    def instrument(self, app: FastAPI) -> None:
        """Trace the app with opentelemetry-instrumentation-fastapi: one server span for each request, none for the
        chunks of a stream. Does nothing for an app that is traced already, even if by FastAPI itself.
        """
        instrument(app)

    async def store(self) -> InterceptionStore | None:
        """Return the recorder that can be read back, None if there is none. Raises what the app's recorder function
        raises.
        """
        return await self._host.store()

    async def usage_store(self) -> UsageStore | None:
        """Return the recorder that can aggregate its records, None if there is none. Raises what `store` raises."""
        return await self._host.usage_store()

    async def resolve_principal(
        self,
        connection: HTTPConnection,
        response: Response | None = None,
        background_tasks: BackgroundTasks | None = None,
    ) -> Principal:
        """Return the caller of a request or WebSocket of the app, for dependencies, middleware and plain routes.

        Raises what the principal dependency raises. Outside of FastAPI's routes, dependencies with `yield` end before
        this returns.
        """
        return await self._resolver(connection, response, background_tasks)

    async def _client_key_principal(self, connection: HTTPConnection) -> Principal:
        token = caller_token(dict(connection.scope["headers"]))
        principal = self._host.known_principal(token)
        try:
            principal = principal or await self._host.find_principal(connection.scope, token)
        except GatewayError as error:
            code = status.WS_1013_TRY_AGAIN_LATER
            raise _refusal(connection, error.status, code, error.message, error.headers) from None
        if principal is not None:
            return principal
        if connection.scope["type"] == "http":
            raise HTTPException(401, "no valid key was given", headers={"WWW-Authenticate": "Bearer"})
        raise WebSocketException(status.WS_1008_POLICY_VIOLATION, "no valid key was given")


class _Router(FlatRouter):
    """A router that refers to its plugin, so that `get_bridge` finds the right one if several run."""

    def __init__(self, aibridge: AIBridge) -> None:
        super().__init__(lifespan=aibridge.lifespan)
        self.aibridge = aibridge


async def get_bridge(
    connection: HTTPConnection,
    response: Response,
    background_tasks: BackgroundTasks,
    _: None = Depends(CallerScheme()),
) -> AsyncIterator[RequestBridge]:
    """The dependency with the caller's bridge, for any HTTP or WebSocket route of an app that includes the router:
    `Depends(get_bridge)`.

    The bridge is leased until the response, stream included, has ended. Raises `ConfigurationError` if the lifespan
    does not run, and if the app has several plugins: use `Depends(aibridge.get_bridge)` then.
    """
    async with _leased(_of_app(connection), connection, response, background_tasks) as bridge:
        yield bridge


@asynccontextmanager
async def _leased(
    aibridge: AIBridge, connection: HTTPConnection, response: Response, background_tasks: BackgroundTasks
) -> AsyncIterator[RequestBridge]:
    try:
        lease = aibridge.pool.acquire(await aibridge.resolve_principal(connection, response, background_tasks))
        bridge = await lease.__aenter__()
    except PrincipalError as error:
        if not error.by_caller:
            raise
        raise _refusal(connection, 400, status.WS_1008_POLICY_VIOLATION, str(error)) from None
    except (PoolShutdown, BuildTimeout) as error:
        headers = {"Retry-After": "5", "Connection": "close"}
        raise _refusal(connection, 503, status.WS_1012_SERVICE_RESTART, str(error), headers) from None
    except GatewayError as error:
        code = status.WS_1013_TRY_AGAIN_LATER
        raise _refusal(connection, error.status, code, error.message, error.headers) from None
    try:
        yield bridge
    finally:
        lease.release()


def _refusal(
    connection: HTTPConnection, http: int, websocket: int, text: str, headers: Mapping[str, str] | None = None
) -> Exception:
    if isinstance(connection, Request):
        return HTTPException(http, text, headers=dict(headers or {}))
    return WebSocketException(websocket, text)


_found: WeakKeyDictionary[Any, tuple[int, frozenset[AIBridge]]] = WeakKeyDictionary()
"""The plugins whose routers each app has included, with the number of its routes when they were looked up."""


def _of_app(connection: HTTPConnection) -> AIBridge:
    """Return the plugin of the request's app, or the only plugin of the app that runs around it."""
    scope = connection.scope
    found = _included(scope.get("app")) or {
        value
        for name, value in scope.get("state", {}).items()
        if name.startswith(_STATE) and isinstance(value, AIBridge)
    }
    if len(found) == 1:
        return next(iter(found))
    if found:
        raise ConfigurationError(
            f"get_bridge cannot tell which of {len(found)} AIBridge objects is meant; give each handler its own "
            "resolver: Depends(aibridge.get_bridge)"
        )
    raise ConfigurationError(
        "get_bridge found no aibridge in the lifespan's state. Call app.include_router(aibridge.router) on the app "
        "that the server runs; a sub-app that is mounted has no lifespan of its own, so give the outer app "
        "lifespan=aibridge.lifespan, or yield what that yields from your own. In tests use 'with TestClient(app)'."
    )


def _included(app: Any) -> frozenset[AIBridge]:
    routers = included_routers(app)
    if routers is None:
        return frozenset()
    routes = len(app.router.routes)
    known = _found.get(app)
    if known is None or known[0] != routes:
        known = _found[app] = (routes, frozenset(one.aibridge for one in routers if isinstance(one, _Router)))
    return known[1]
