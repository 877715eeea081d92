"""One principal's handler: an ASGI app that answers as the providers' own APIs would."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.types import Receive, Scope, Send

from .bridge_state import Acquire, BridgeState
from .errors import ConfigurationError, GatewayError
from .exchange import Admitted, Engine, Exchange, PassThrough, admit
from .exchange.fair_queue import START
from .exchange.interruption import ClientGone, Interruption
from .exchange.refusal import send_error
from .inprocess import clients
from .principal import Principal
from .providers import Provider
from .providers.request_headers import check_headers
from .providers.routes import Route, Target
from .tools import Tool, Tools
from .upstream.keys import BYOK

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic
    from httpx2 import AsyncClient
    from openai import AsyncOpenAI

logger = logging.getLogger(__name__)

T = TypeVar("T")


class RequestBridge:
    """Relays the calls of one principal to the providers that were configured when it was built.

    `principal` is that of the request that leased it, and so is the metadata in the records.

    Paths are `/{provider}/v1/...`, below the scope's `root_path`. Safe for concurrent use.
    """

    __slots__ = ("_goes_on", "_state", "principal")

    def __init__(self, principal: Principal, state: BridgeState) -> None:
        self.principal = principal
        self._state = state
        self._goes_on = state.retired  # leased in the moment that it was retired: it may serve until it is closed

    @property
    def providers(self) -> tuple[Provider, ...]:
        return tuple(self._state.providers.values())

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools that are injected into the principal's requests, in the order in which models see them."""
        return self._state.tools.tools

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
        if (provider := self._state.providers.get(name)) is not None:
            return provider
        raise ConfigurationError(
            f"there is no provider {name!r}; there are: {', '.join(sorted(self._state.providers)) or 'none'}"
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request.

        A bridge may be held for longer than it lives, by a WebSocket above all. Once it has been retired, requests go
        to the one that has taken its place, as long as there is one.
        """
        state = self._state
        if state.retired and state.acquire is not None and (state.closed or not self._goes_on):
            try:
                lease = state.acquire(self.principal)
                successor: RequestBridge = await lease.__aenter__()
            except Exception as error:  # noqa: BLE001 - whatever a build raises: this bridge is still there, or says so
                logger.debug("a retired bridge has no successor: %s", type(error).__name__)
            else:
                try:
                    await successor._answer(scope, receive, send)
                finally:
                    await lease.__aexit__(None, None, None)
                return
        await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = self._state
        path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        name, _, tail = path[1:].partition("/")
        provider = state.providers.get(name)
        try:
            if provider is None:
                raise GatewayError(404, "unknown_provider", f"there is no provider {name[:64]!r}")
            if not provider.enabled:
                raise GatewayError(404, "provider_disabled", f"provider {name!r} is disabled")
            check_headers(scope["headers"])
            rates = state.engine.rates
            if rates.is_on:
                rates.check(self.principal, provider)
            limits, initiator = state.engine.limits, self.principal.initiator_id
            await limits.enter(initiator)
            try:
                if not state.share.take(START):
                    await state.share.turn(START)
                await self._dispatch(provider, tail, scope, receive, send)
            finally:
                limits.leave(initiator)
        except GatewayError as error:
            state.engine.metrics.refused(error.code)
            await send_error(send, provider, error, path=path)
        except ClientGone:
            pass

    async def _dispatch(self, provider: Provider, tail: str, scope: Scope, receive: Receive, send: Send) -> None:
        state = self._state
        target = provider.routes.find(scope["method"], tail, scope.get("raw_path"))
        if state.closed:
            raise state.refusal()
        if target.route is None:
            if state.tracer is None:
                await self._intercept(provider, target, scope, receive, send)
                return
            with state.tracer.start_as_current_span(
                "Intercept",
                attributes={
                    "aibridge.initiator_id": self.principal.initiator_id,
                    "aibridge.api_key_id": self.principal.api_key_id,
                    "aibridge.provider": provider.name,
                    "aibridge.route": target.path,
                },
            ):
                await self._intercept(provider, target, scope, receive, send)
        else:
            await self._pass_through(provider, target, target.route, scope, receive, send)

    async def _intercept(self, provider: Provider, target: Target, scope: Scope, receive: Receive, send: Send) -> None:
        state = self._state
        holding = state.engine.bodies.holding(self.principal.initiator_id)
        try:
            admitted = await self._arrival(
                admit(state.engine, self.principal, provider, target, scope, receive, state.share, holding)
            )
            if admitted.request.references and admitted.credential.kind != BYOK:
                account = state.accounts[provider.name]
                await state.engine.ownership.check(self.principal.initiator_id, account, admitted.request.references)
            await self._run(admitted, receive, send)
        finally:
            holding.release()

    async def _run(self, admitted: Admitted, receive: Receive, send: Send) -> None:
        state = self._state
        rates = state.engine.rates
        if rates.is_on:
            model = admitted.request.model
            admitted.ticket = rates.begin(admitted.principal, admitted.provider, model, len(admitted.body))
        interruption = Interruption(receive)
        state.begin(interruption)
        cap = state.engine.limits.max_stream_duration if admitted.request.streaming else None
        if cap is not None:
            timer = asyncio.get_running_loop().call_later(cap, interruption.interrupt, _too_long(cap))
        try:
            memory = state.engine.tool_memory.of((*admitted.principal.key, admitted.provider.name))
            if memory.is_shared and state.has_tool_servers:
                await memory.recall(partial(admitted.format.restored, admitted.body), state.share)
            exchange = Exchange(state.engine, state.share, admitted, send, state.tracer, state.toolset())
            await exchange.run(interruption)
        finally:
            state.end(interruption)
            if admitted.ticket is not None:
                admitted.ticket.release()
            if cap is not None:
                timer.cancel()

    async def _pass_through(
        self, provider: Provider, target: Target, route: Route, scope: Scope, receive: Receive, send: Send
    ) -> None:
        state = self._state
        passage = PassThrough(
            state.engine,
            self.principal,
            state.share,
            provider,
            state.accounts[provider.name],
            target,
            route,
            scope,
            send,
        )
        holding = state.engine.bodies.holding(self.principal.initiator_id)
        try:
            request = await self._arrival(passage.admit(receive, holding))
            rates = state.engine.rates
            ticket = rates.begin(self.principal, provider, None, 0) if rates.is_on else None
            interruption = Interruption(receive)
            state.begin(interruption)
            try:
                if ticket is not None:
                    await ticket.admitted()
                    passage.added = ticket.headers
                await passage.run(request, interruption)
            finally:
                state.end(interruption)
                if ticket is not None:
                    ticket.release()
        finally:
            holding.release()

    async def _arrival(self, admitted: Coroutine[Any, Any, T]) -> T:
        """What comes of a request that arrives; a bridge that closes ends the wait for its body."""
        arrival = Interruption()
        try:
            self._state.begin(arrival)
        except BaseException:
            admitted.close()
            raise
        try:
            with arrival:
                return await admitted
        finally:
            self._state.end(arrival)


class SharedBridge(BridgeState):
    """What the pool keeps for a principal; implements `PooledBridge`."""

    __slots__ = ("_own",)

    def __init__(
        self,
        principal: Principal,
        providers: Iterable[Provider],
        engine: Engine,
        tools: Tools | None = None,
        acquire: Acquire | None = None,
    ) -> None:
        super().__init__(principal.initiator_id, providers, engine, tools, acquire)
        self._own = RequestBridge(principal, self)

    def seen_by(self, principal: Principal) -> RequestBridge:
        """The bridge for one lease: with the principal of that request, whose metadata may be others."""
        own = self._own
        same = own.principal is principal or own.principal == principal
        return own if same and not self.retired else RequestBridge(principal, self)


def _too_long(seconds: float) -> GatewayError:
    return GatewayError(504, "stream_too_long", f"the stream took longer than the gateway's limit of {seconds:g} s")
