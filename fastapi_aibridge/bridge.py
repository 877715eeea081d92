"""One principal's handler: an ASGI app that answers as the providers' own APIs would."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from starlette.types import Receive, Scope, Send

from .bridge_state import Acquire, BridgeState
from .errors import ConfigurationError, GatewayError
from .exchange import Engine, Exchange, PassThrough, admit
from .exchange.fair_queue import START
from .exchange.interruption import ClientGone, Interruption
from .exchange.memory import Holding
from .exchange.refusal import send_error
from .inprocess import clients
from .money.caller_usage import CallerUsage, caller_usage
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

    async def usage(self) -> CallerUsage:
        """What the principal has spent this month, and what the budgets leave. Raises `RecorderUnavailable`."""
        engine = self._state.engine
        return await caller_usage(engine.recorder, engine.budgets, self.principal)

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
        state, engine, initiator = self._state, self._state.engine, self.principal.initiator_id
        path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        name, _, tail = path[1:].partition("/")
        provider = state.providers.get(name)
        try:
            if provider is None:
                raise GatewayError(404, "unknown_provider", f"there is no provider {name[:64]!r}")
            if not provider.enabled:
                raise GatewayError(404, "provider_disabled", f"provider {name!r} is disabled")
            check_headers(scope["headers"])
            if engine.rates.is_on:
                engine.rates.check(self.principal, provider)
            await engine.limits.enter(initiator)
            try:
                if not state.share.take(START):
                    await state.share.turn(START)
                target = provider.routes.find(scope["method"], tail, scope.get("raw_path"))
                interruption = Interruption(watches=engine.watches)
                holding = engine.bodies.holding(initiator)
                state.begin(interruption)
                try:
                    if target.route is not None:
                        passage = self._passage(provider, target, target.route, scope, send)
                        await self._pass_through(passage, provider, receive, holding, interruption)
                    elif state.tracer is None:
                        await self._intercept(provider, target, scope, receive, send, holding, interruption)
                    else:
                        with state.tracer.start_as_current_span(
                            "Intercept",
                            attributes={
                                "aibridge.initiator_id": initiator,
                                "aibridge.api_key_id": self.principal.api_key_id,
                                "aibridge.provider": provider.name,
                                "aibridge.route": target.path,
                            },
                        ):
                            await self._intercept(provider, target, scope, receive, send, holding, interruption)
                finally:
                    state.end(interruption)
                    holding.release()
            finally:
                engine.limits.leave(initiator)
        except GatewayError as error:
            engine.metrics.refused(error.code)
            await send_error(send, provider, error, path=path)
        except ClientGone:
            pass

    async def _intercept(
        self,
        provider: Provider,
        target: Target,
        scope: Scope,
        receive: Receive,
        send: Send,
        holding: Holding,
        interruption: Interruption,
    ) -> None:
        state, principal = self._state, self.principal
        engine = state.engine
        with interruption:
            admitted = await admit(
                engine, principal, provider, target, scope, receive, state.share, holding, interruption
            )
        if admitted.request.references and admitted.credential.kind != BYOK:
            account = state.accounts[provider.name]
            await engine.ownership.check(principal.initiator_id, account, admitted.request.references)
        if engine.rates.is_on:
            admitted.ticket = engine.rates.begin(principal, provider, admitted.request.model, len(admitted.body))
        interruption.watch(receive)
        cap = engine.limits.max_stream_duration if admitted.request.streaming else None
        if cap is not None:
            timer = asyncio.get_running_loop().call_later(cap, interruption.interrupt, _too_long(cap))
        try:
            memory = engine.tool_memory.of((*principal.key, provider.name))
            if memory.is_shared and state.has_tool_servers:
                await memory.recall(partial(admitted.format.restored, admitted.body), state.share)
            exchange = Exchange(engine, state.share, admitted, send, state.tracer, state.toolset())
            await exchange.run(interruption)
        finally:
            if admitted.ticket is not None:
                admitted.ticket.release()
            if cap is not None:
                timer.cancel()

    def _passage(self, provider: Provider, target: Target, route: Route, scope: Scope, send: Send) -> PassThrough:
        state = self._state
        account = state.accounts[provider.name]
        return PassThrough(state.engine, self.principal, state.share, provider, account, target, route, scope, send)

    async def _pass_through(
        self,
        passage: PassThrough,
        provider: Provider,
        receive: Receive,
        holding: Holding,
        interruption: Interruption,
    ) -> None:
        with interruption:
            request = await passage.admit(receive, holding, interruption)
        interruption.watch(receive)
        rates = self._state.engine.rates
        ticket = rates.begin(self.principal, provider, None, 0) if rates.is_on else None
        try:
            if ticket is not None:
                await ticket.admitted()
                passage.added = ticket.headers
            await passage.run(request, interruption)
        finally:
            if ticket is not None:
                ticket.release()


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
