"""One principal's handler: an ASGI app that answers as the providers' own APIs would."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from starlette.types import Receive, Scope, Send

from .errors import ConfigurationError, GatewayError
from .exchange import Engine, Exchange, pass_through
from .exchange.body import ClientGone
from .exchange.fair_queue import START
from .exchange.interruption import Interruption
from .exchange.refusal import send_error
from .exchange.toolset import Toolset
from .inprocess import clients
from .observability.tracing import tracer
from .principal import Principal
from .providers import Provider
from .providers.path import raw_tail
from .providers.request_headers import check_headers
from .tools import NoTools, Tool, Tools

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic
    from httpx2 import AsyncClient
    from openai import AsyncOpenAI

logger = logging.getLogger(__name__)


class RequestBridge:
    """Relays the calls of one principal to the providers that were configured when it was built.

    Paths are `/{provider}/v1/...`, below the scope's `root_path`. Safe for concurrent use.
    """

    __slots__ = (
        "_closed",
        "_engine",
        "_idle",
        "_providers",
        "_running",
        "_share",
        "_tools",
        "_toolset",
        "_tracer",
        "principal",
    )

    def __init__(
        self, principal: Principal, providers: Iterable[Provider], engine: Engine, tools: Tools | None = None
    ) -> None:
        self.principal = principal
        self._providers = {provider.name: provider for provider in providers}
        self._engine = engine
        self._share = engine.queue.share(principal.initiator_id)
        self._tools: Tools = tools or NoTools()
        self._toolset: Toolset | None = None
        self._running: set[Interruption] = set()
        self._idle: asyncio.Event | None = None
        self._closed = False
        self._tracer = tracer()

    @property
    def providers(self) -> tuple[Provider, ...]:
        return tuple(self._providers.values())

    @property
    def degraded(self) -> bool:
        """Whether an MCP server failed to start: the bridge works without its tools."""
        return self._tools.degraded

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools that are injected into the principal's requests, in the order in which models see them."""
        return self._tools.tools

    def openai(self, provider: str = "openai", *, api_key: str | None = None) -> AsyncOpenAI:
        """The official SDK's client of one provider, with this bridge in the place of its API: no socket, no key.

        `api_key` is the principal's own key, for a provider that takes one. The client does not try again by itself
        and has no timeout: the gateway sees to both. It takes some 50 µs to make and holds nothing, so make one where
        you need it; use it while you hold the bridge. Raises `ConfigurationError` without the extra `openai`, and for
        a provider that is unknown or speaks another API.
        """
        return clients.openai_client(self, self._provider(provider), api_key)

    def anthropic(self, provider: str = "anthropic", *, api_key: str | None = None) -> AsyncAnthropic:
        """The same of Anthropic's SDK; its extra is `anthropic`."""
        return clients.anthropic_client(self, self._provider(provider), api_key)

    def http_client(self, provider: str, *, api_key: str | None = None) -> AsyncClient:
        """The client below the SDKs', for a library that takes one; paths begin with `/v1`.

        All that is sent with it goes to this provider through this bridge, whatever the host of the URL. Keys of the
        requests are dropped, except beside `X-AIBridge-Token`: then they are the principal's own, as `api_key` is.
        Raises `ConfigurationError` without httpx2, and for an unknown provider.
        """
        return clients.http_client(self, self._provider(provider), api_key)

    def _provider(self, name: str) -> Provider:
        if (provider := self._providers.get(name)) is not None:
            return provider
        raise ConfigurationError(
            f"there is no provider {name!r}; there are: {', '.join(sorted(self._providers)) or 'none'}"
        )

    async def start(self) -> None:
        """Connect to the MCP servers."""
        await self._tools.start()

    async def aclose(self) -> None:
        """End what still runs on this bridge, with an error to its clients, and then its MCP sessions."""
        self._closed = True
        try:
            if self._running:
                self._idle = asyncio.Event()
                for interruption in tuple(self._running):
                    interruption.interrupt(_closing())
                await self._idle.wait()
        finally:
            await self._tools.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        name, _, tail = path[1:].partition("/")
        provider = self._providers.get(name)
        try:
            if provider is None:
                raise GatewayError(404, "unknown_provider", f"there is no provider {name[:64]!r}")
            if not provider.enabled:
                raise GatewayError(404, "provider_disabled", f"provider {name!r} is disabled")
            check_headers(scope["headers"])
            limits, initiator = self._engine.limits, self.principal.initiator_id
            await limits.enter(initiator)
            try:
                if not self._share.take(START):
                    await self._share.turn(START)
                await self._dispatch(provider, tail, scope, receive, send)
            finally:
                limits.leave(initiator)
        except GatewayError as error:
            self._engine.metrics.refused(error.code)
            await send_error(send, provider, error, path=path)
        except ClientGone:
            pass

    async def _dispatch(self, provider: Provider, tail: str, scope: Scope, receive: Receive, send: Send) -> None:
        route = f"/{tail}"
        written: bytes | None = scope.get("raw_path")
        if route in provider.intercepted and written and written.endswith(route.encode()) and b"%" not in written:
            raw_path = route  # the common case: written as it is meant
        else:
            raw = raw_tail(tail, written)
            if raw is None:
                raise _not_found(provider, "that path")
            raw_path = f"/{raw}"
        if self._closed:
            raise _closing()
        if route in provider.intercepted and scope["method"] == "POST":
            if self._tracer is None:
                await self._intercept(provider, route, raw_path, scope, receive, send)
                return
            with self._tracer.start_as_current_span(
                "Intercept",
                attributes={
                    "aibridge.initiator_id": self.principal.initiator_id,
                    "aibridge.api_key_id": self.principal.api_key_id,
                    "aibridge.provider": provider.name,
                    "aibridge.route": route,
                },
            ):
                await self._intercept(provider, route, raw_path, scope, receive, send)
        elif provider.passes_through(route):
            interruption = Interruption(receive)
            self._running.add(interruption)
            try:
                await pass_through(self._engine, self.principal, provider, raw_path, scope, receive, send, interruption)
            finally:
                self._done(interruption)
        else:
            raise _not_found(provider, f"{scope['method']} {route[:64]}")

    async def _intercept(
        self, provider: Provider, route: str, raw_path: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        exchange = Exchange(
            self._engine,
            self.principal,
            self._share,
            provider,
            route,
            raw_path,
            scope,
            send,
            self._tracer,
            self._current_toolset(),
        )
        request, credential = await exchange.admit(receive)
        if self._closed:
            raise _closing()
        interruption = Interruption(receive)
        self._running.add(interruption)
        cap = self._engine.limits.max_stream_duration if request.streaming else None
        if cap is not None:
            timer = asyncio.get_running_loop().call_later(cap, interruption.interrupt, _too_long(cap))
        try:
            await exchange.run(request, credential, interruption)
        finally:
            self._done(interruption)
            if cap is not None:
                timer.cancel()

    def _current_toolset(self) -> Toolset | None:
        """The tools as they are now: a server may tell that its list has changed."""
        tools = self._tools.tools
        if not tools:
            return None
        if self._toolset is None or self._toolset.listed is not tools:
            self._toolset = Toolset(self._tools)
        return self._toolset

    def _done(self, interruption: Interruption) -> None:
        self._running.discard(interruption)
        if self._idle is not None and not self._running:
            self._idle.set()


def _not_found(provider: Provider, what: str) -> GatewayError:
    return GatewayError(404, "not_found", f"the gateway does not relay {what} to provider {provider.name!r}")


def _too_long(seconds: float) -> GatewayError:
    return GatewayError(504, "stream_too_long", f"the stream took longer than the gateway's limit of {seconds:g} s")


def _closing() -> GatewayError:
    return GatewayError(
        503, "shutting_down", "the gateway is closing this session; try again", headers={"retry-after": "1"}
    )
