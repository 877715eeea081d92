"""The bridge that the pool keeps for a principal: it checks each request and runs it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial

from starlette.types import Receive, Scope, Send

from .bridge import RequestBridge
from .bridge_state import Acquire, BridgeState
from .errors import GatewayError
from .exchange.admission import admit
from .exchange.body_budget import Holding
from .exchange.engine import Engine
from .exchange.error_response import send_error
from .exchange.exchange import Exchange
from .exchange.fair_queue import START
from .exchange.interruption import ClientGone, Interruption
from .exchange.passthrough import PassThrough
from .money.caller_usage import CallerUsage, caller_usage
from .principal import Principal
from .providers.provider import Provider
from .providers.request_headers import check_headers
from .providers.routes import Target
from .tools import Tools
from .upstream.keys import BYOK


class SharedBridge(BridgeState):
    """One principal's bridge in the pool. Implements `PooledBridge`."""

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
        """Return the bridge for one lease, with the principal of its request, whose metadata may differ."""
        own = self._own
        same = own.principal is principal or own.principal == principal
        return own if same and not self.retired else RequestBridge(principal, self)

    async def usage(self, principal: Principal) -> CallerUsage:
        return await caller_usage(self.engine.recorder, self.engine.budgets, principal)

    async def answer(self, principal: Principal, scope: Scope, receive: Receive, send: Send) -> None:
        engine, initiator = self.engine, principal.initiator_id
        path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        name, _, tail = path[1:].partition("/")
        provider = self.providers.get(name)
        try:
            if provider is None:
                raise GatewayError(404, "unknown_provider", f"there is no provider {name[:64]!r}")
            if not provider.enabled:
                raise GatewayError(404, "provider_disabled", f"provider {name!r} is disabled")
            check_headers(scope["headers"])
            if engine.rates.is_on:
                engine.rates.check(principal, provider)
            await engine.limits.enter(initiator)
            try:
                if not self.share.take(START):
                    await self.share.turn(START)
                target = provider.routes.find(scope["method"], tail, scope.get("raw_path"))
                interruption = Interruption(watches=engine.watches)
                holding = engine.bodies.holding(initiator)
                self.begin(interruption)
                try:
                    if target.route is not None:
                        account = self.accounts[provider.name]
                        passage = PassThrough(
                            engine, principal, self.share, provider, account, target, target.route, scope, send
                        )
                        await self._pass_through(principal, passage, provider, receive, holding, interruption)
                    elif self.tracer is None:
                        await self._intercept(principal, provider, target, scope, receive, send, holding, interruption)
                    else:
                        with self.tracer.start_as_current_span(
                            "Intercept",
                            attributes={
                                "aibridge.initiator_id": initiator,
                                "aibridge.api_key_id": principal.api_key_id,
                                "aibridge.provider": provider.name,
                                "aibridge.route": target.path,
                            },
                        ):
                            await self._intercept(
                                principal, provider, target, scope, receive, send, holding, interruption
                            )
                finally:
                    self.end(interruption)
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
        principal: Principal,
        provider: Provider,
        target: Target,
        scope: Scope,
        receive: Receive,
        send: Send,
        holding: Holding,
        interruption: Interruption,
    ) -> None:
        engine = self.engine
        with interruption:
            admitted = await admit(
                engine, principal, provider, target, scope, receive, self.share, holding, interruption
            )
        if admitted.request.references and admitted.credential.kind != BYOK:
            account = self.accounts[provider.name]
            await engine.ownership.check(principal.initiator_id, account, admitted.request.references)
        if engine.rates.is_on:
            admitted.ticket = engine.rates.begin(principal, provider, admitted.request.model, len(admitted.body))
        interruption.watch(receive)
        cap = engine.limits.max_stream_duration if admitted.request.streaming else None
        if cap is not None:
            timer = asyncio.get_running_loop().call_later(cap, interruption.interrupt, _too_long(cap))
        try:
            memory = engine.tool_memory.of((*principal.key, provider.name))
            if memory.is_shared and self.has_tool_servers:
                await memory.recall(partial(admitted.format.restored, admitted.body), self.share)
            exchange = Exchange(engine, self.share, admitted, send, self.tracer, self.toolset())
            await exchange.run(interruption)
        finally:
            if admitted.ticket is not None:
                admitted.ticket.release()
            if cap is not None:
                timer.cancel()

    async def _pass_through(
        self,
        principal: Principal,
        passage: PassThrough,
        provider: Provider,
        receive: Receive,
        holding: Holding,
        interruption: Interruption,
    ) -> None:
        with interruption:
            request = await passage.admit(receive, holding, interruption)
        interruption.watch(receive)
        rates = self.engine.rates
        ticket = rates.begin(principal, provider, None, 0) if rates.is_on else None
        try:
            if ticket is not None:
                await ticket.admitted()
                passage.added = ticket.headers
            await passage.run(request, interruption)
        finally:
            if ticket is not None:
                ticket.release()


def _too_long(seconds: float) -> GatewayError:
    return GatewayError(504, "stream_too_long", f"the stream took longer than the gateway's limit of {seconds:g} s")
