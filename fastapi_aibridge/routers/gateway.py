"""The data plane: routes that hand each request to its principal's bridge.

FastAPI's processing of a request costs as much as all the rest, so the main route bypasses it: it only solves the
dependencies that FastAPI has found for it. If FastAPI does not reveal them, or has more to do, FastAPI handles the
request.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute
from starlette.background import BackgroundTasks
from starlette.routing import Match
from starlette.types import Message, Receive, Scope, Send

from ..credentials import TOKEN, caller_token
from ..errors import GatewayError
from ..fastapi_inside import (
    Solver,
    calls_below,
    declared,
    dependency_stacks,
    inclusion,
    overrides,
    reads_body,
    route_key,
)
from ..fastapi_inside.principal_dependency import checked
from ..host import Host
from ..principal import Principal
from ..settings import RESERVED_NAMES
from .probes import add_probe_routes, probe_of
from .screen import Screen
from .serving import below_prefix, refusal_of, refuse, serve, unauthorized

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]

_MATCHED = "aibridge.matched"
"""The key of the scope that holds the route's last match, and for which request it was."""


def add_gateway_route(router: APIRouter, host: Host, principal: Callable[..., Any], *, built_in: bool) -> None:
    """Add the routes. `built_in` says that `principal` is the gateway's own check of client keys."""
    entrances = _Entrances(principal, built_in=built_in)

    async def relay(caller: object = Depends(principal)) -> Response:
        return _BridgeResponse(host, checked(caller))

    class GatewayRoute(APIRoute):
        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            # FastAPI calls this twice for each request, to find the router and to find the route in it.
            key = route_key(scope)
            known = scope.get(_MATCHED)
            if key is not None and known is not None and known[0] is key:
                return known[1], known[2]
            match, child = super().matches(scope)
            if match is not Match.NONE and (child["path_params"]["provider"] in RESERVED_NAMES or _only_tried(scope)):
                match, child = Match.NONE, {}
            scope[_MATCHED] = (key, match, child)
            return match, child

        async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["method"] not in METHODS:
                await refuse(host, _not_allowed(scope["method"]), scope, send)
                return
            entrance = entrances.of(scope)
            solver = entrance.solver
            if solver is None:
                await super().handle(scope, receive, send)
            elif entrance.is_bare and (probe := probe_of(scope)) is not None:
                await probe(host, scope, send)
            elif built_in and entrance.is_bare and not overrides(scope["app"]):
                token = caller_token(dict(scope["headers"]))
                caller = host.known_principal(token)
                try:
                    caller = caller or await host.find_principal(scope, token)
                except GatewayError as error:
                    await refuse(host, error, scope, send)
                    return
                if caller is None:
                    await refuse(host, unauthorized(), scope, send)
                else:
                    await serve(host, caller, below_prefix(scope), receive, send)
            else:
                await _direct(host, entrance, solver, scope, receive, send)

        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            by_fastapi = super().get_route_handler()

            async def handle(request: Request) -> Response:
                messages = _Rereadable(request.receive)
                try:
                    response = await by_fastapi(Request(request.scope, messages.read))
                except Exception as error:
                    if (refusal := refusal_of(error)) is None:
                        raise
                    return _Refusal(host, refusal)
                if isinstance(response, _BridgeResponse):
                    response.prepare(messages.read_again, entrances.of(request.scope).screen(request.scope))
                return response

            return handle

    router.add_api_route(
        "/{provider}/{path:path}",
        relay,
        methods=METHODS,
        include_in_schema=False,
        route_class_override=GatewayRoute,
    )
    add_probe_routes(router, host)


class _Entrance:
    """One way to the route, through routers that may add dependencies of their own."""

    def __init__(self, key: object, principal: Callable[..., Any], *, built_in: bool) -> None:
        told = inclusion(key)
        # The built-in check is ours: it reads no secret of the app's, and a provider's own key may be where it reads.
        every = None if told is None else declared(told.dependant, principal, principal if built_in else None)
        # The built-in check tries X-AIBridge-Token first; an app's own dependency reads it only if it declares so.
        by_token = every is not None and (built_in or TOKEN in every.headers)
        self._screen = Screen(every, by_token=by_token)
        self._overridden_screen = Screen(every, by_token=False)
        self._told_by = frozenset[Callable[..., Any]]() if told is None else calls_below(told.dependant, principal)
        self.key = key
        self.is_bare = told is not None and told.is_bare
        self.solver: Solver | None = None
        """Solves the route's dependencies; None if FastAPI has to handle the request."""
        if told is not None and every is not None and not told.is_limited and not reads_body(told.dependant):
            self.solver = Solver(told.dependant)

    def screen(self, scope: Scope) -> Screen:
        """Return the screen that removes from this request what dependencies read."""
        replaced = overrides(scope.get("app"))
        return self._overridden_screen if replaced and self._told_by & replaced.keys() else self._screen


class _Entrances:
    """All ways to the route, by FastAPI's object for each. They are few, and last as long as the app."""

    def __init__(self, principal: Callable[..., Any], *, built_in: bool) -> None:
        self._principal = principal
        self._built_in = built_in
        self._known: dict[int, _Entrance] = {}

    def of(self, scope: Scope) -> _Entrance:
        key = route_key(scope)
        known = self._known.get(id(key))
        if known is None or known.key is not key:
            known = self._known[id(key)] = _Entrance(key, self._principal, built_in=self._built_in)
        return known


async def _direct(host: Host, entrance: _Entrance, solver: Solver, scope: Scope, receive: Receive, send: Send) -> None:
    """Do what FastAPI would do for the route, without the steps that have no effect here."""
    messages = _Rereadable(receive)
    request = Request(scope, messages.read, send)
    if not overrides(scope["app"]):
        try:
            solved = await solver.quick(request)
            principal = None if solved is None else checked(solved.values["caller"])
        except Exception as error:
            if (refusal := refusal_of(error)) is None:
                raise
            await refuse(host, refusal, scope, send)
            return
        if solved is not None and principal is not None:
            screened = entrance.screen(scope)(below_prefix(scope))
            await serve(host, principal, screened, messages.read_again, send)
            if solved.background_tasks is not None:
                await solved.background_tasks()
            return
    async with dependency_stacks(scope) as of_functions:
        try:
            solved = await solver.by_fastapi(request)
            answer = _BridgeResponse(host, checked(solved.values["caller"]), solved.background_tasks)
            answer.prepare(messages.read_again, entrance.screen(scope))
            response: Response = answer
        except Exception as error:
            if (refusal := refusal_of(error)) is None:
                raise
            response = _Refusal(host, refusal)
        await of_functions.aclose()
        await response(scope, receive, send)


class _BridgeResponse(Response):
    """A response that the principal's bridge writes, and until whose end the lease is held."""

    def __init__(self, host: Host, principal: Principal, background: BackgroundTasks | None = None) -> None:
        self._host = host
        self._principal = principal
        self._receive: Receive | None = None
        self._screen: Screen = Screen(None, by_token=False)
        self.background = background
        self.status_code = 200

    def prepare(self, receive: Receive, screen: Screen) -> None:
        """Set the source of the body, which dependencies may have read already, and the screen for the request."""
        self._receive = receive
        self._screen = screen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        below = self._screen(below_prefix(scope))
        await serve(self._host, self._principal, below, self._receive or receive, send)
        if self.background is not None:
            await self.background()


class _Refusal(Response):
    def __init__(self, host: Host, error: GatewayError) -> None:
        self._host = host
        self._error = error
        self.background = None
        self.status_code = error.status

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        await refuse(self._host, self._error, scope, send)


class _Rereadable:
    """A request's messages, which can be read twice: by dependencies that check a signature, say, and by the bridge."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._messages: list[Message] = []

    async def read(self) -> Message:
        message = await self._receive()
        self._messages.append(message)
        return message

    async def read_again(self) -> Message:
        return self._messages.pop(0) if self._messages else await self._receive()


def _only_tried(scope: Scope) -> bool:
    """Whether FastAPI tries a path with a slash added, in order to redirect there."""
    raw_path: bytes = scope.get("raw_path") or b"/"
    return scope["path"].endswith("/") and not raw_path.lower().endswith((b"/", b"%2f"))


def _not_allowed(method: str) -> GatewayError:
    return GatewayError(
        405, "method_not_allowed", f"{method[:16]} is not relayed", headers={"allow": ", ".join(METHODS)}
    )
