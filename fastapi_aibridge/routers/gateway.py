"""The data plane: one route that hands each request to its principal's bridge."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any, Protocol
from urllib.parse import unquote_plus

from fastapi import APIRouter, Depends, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import Message, Receive, Scope, Send

from ..bridge import RequestBridge
from ..credentials import caller_token
from ..dependencies import Declared, checked, declared
from ..errors import BuildTimeout, GatewayError, PoolShutdown, PrincipalError
from ..exchange.refusal import send_error
from ..pool import CachedBridgePool
from ..principal import Principal
from ..providers import Provider
from ..settings import RESERVED_NAMES

logger = logging.getLogger(__name__)

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]

_MATCHED = "aibridge.matched"
"""Where the scope holds what the route was asked last, and its answer."""
_CODES = {401: "invalid_api_key", 403: "forbidden", 429: "rate_limit_exceeded"}


class Gateway(Protocol):
    """What the route needs of the plugin."""

    @property
    def pool(self) -> CachedBridgePool[RequestBridge, Provider]: ...

    def known_principal(self, token: bytes | None) -> Principal | None:
        """Whose built-in client key this is."""

    async def unknown_key(self, scope: Scope, token: bytes | None) -> None:
        """Count a client key that nobody has; returns when the request may be refused."""

    def refused(self, code: str) -> None:
        """Count a request that no bridge has seen."""


def add_gateway_route(router: APIRouter, gateway: Gateway, principal: Callable[..., Any], *, built_in: bool) -> None:
    """Add the route; `built_in` says that `principal` is the gateway's own check of client keys.

    FastAPI's machinery for a request costs as much as all the rest of it, so the route steps around it where it has
    nothing to do: built-in principal, no overrides, nothing that the app or an including router adds.
    """

    async def relay(caller: object = Depends(principal)) -> Response:
        return _BridgeResponse(gateway, checked(caller))

    hidden: dict[int, tuple[Dependant, Declared]] = {}

    def hidden_by(dependant: Dependant) -> Declared:
        known = hidden.get(id(dependant))
        if known is None:
            known = hidden[id(dependant)] = (dependant, declared(dependant, secret=principal))
        return known[1]

    class GatewayRoute(APIRoute):
        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            # FastAPI asks twice for each request, once to find the router and once to find the route in it.
            context = _context(scope)
            known = scope.get(_MATCHED)
            if context is not None and known is not None and known[0] is context:
                return known[1], known[2]
            match, child = super().matches(scope)
            if match is not Match.NONE and (child["path_params"]["provider"] in RESERVED_NAMES or _only_tried(scope)):
                match, child = Match.NONE, {}
            scope[_MATCHED] = (context, match, child)
            return match, child

        async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["method"] not in METHODS:
                await _refuse(gateway, _not_allowed(scope["method"]), scope, send)
            elif built_in and _unadorned(scope):
                token = caller_token(dict(scope["headers"]))
                caller = gateway.known_principal(token)
                if caller is None:
                    await gateway.unknown_key(scope, token)
                    await _refuse(gateway, unauthorized(), scope, send)
                else:
                    await _serve(gateway, caller, _below_prefix(scope), receive, send)
            else:
                await super().handle(scope, receive, send)

        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            by_fastapi = super().get_route_handler()

            async def handle(request: Request) -> Response:
                rereadable = _Rereadable(request.receive)
                try:
                    response = await by_fastapi(Request(request.scope, rereadable.read))
                except HTTPException as error:
                    return _Refusal(gateway, _told(error))
                except RequestValidationError as error:
                    return _Refusal(gateway, GatewayError(422, "invalid_request", _where(error)))
                except PrincipalError as error:
                    return _Refusal(gateway, _no_principal(error))
                if isinstance(response, _BridgeResponse):
                    dependant = getattr(_context(request.scope), "dependant", None) or self.dependant
                    response.prepare(rereadable.read_again, hidden_by(dependant))
                return response

            return handle

    router.add_api_route(
        "/{provider}/{path:path}",
        relay,
        methods=METHODS,
        include_in_schema=False,
        route_class_override=GatewayRoute,
    )


def unauthorized() -> GatewayError:
    return GatewayError(
        401,
        "invalid_api_key",
        "no valid key was given; send yours as 'Authorization: Bearer' or 'X-Api-Key'",
        headers={"www-authenticate": "Bearer"},
    )


class _BridgeResponse(Response):
    """A response that the principal's bridge writes; the lease lasts until it has."""

    def __init__(self, gateway: Gateway, principal: Principal) -> None:
        self._gateway = gateway
        self._principal = principal
        self._receive: Receive | None = None
        self._hidden: Declared | None = None
        self.background = None
        self.status_code = 200

    def prepare(self, receive: Receive, hidden: Declared) -> None:
        """Where the body comes from now that dependencies may have read it, and what of the request they keep."""
        self._receive = receive
        self._hidden = hidden

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        below = _below_prefix(scope)
        if self._hidden is not None:
            below = _without(below, self._hidden)
        await _serve(self._gateway, self._principal, below, self._receive or receive, send)
        if self.background is not None:
            await self.background()


class _Rereadable:
    """A request's messages, to be read twice: by dependencies that check a signature, say, and by the bridge."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._messages: list[Message] = []

    async def read(self) -> Message:
        message = await self._receive()
        self._messages.append(message)
        return message

    async def read_again(self) -> Message:
        return self._messages.pop(0) if self._messages else await self._receive()


async def _serve(gateway: Gateway, principal: Principal, scope: Scope, receive: Receive, send: Send) -> None:
    lease = gateway.pool.acquire(principal)
    try:
        bridge = await lease.__aenter__()
    except PoolShutdown as error:
        await _refuse(gateway, _unavailable(str(error), {"connection": "close"}), scope, send)
        return
    except BuildTimeout as error:
        await _refuse(gateway, _unavailable(str(error)), scope, send)
        return
    except GatewayError as error:
        await _refuse(gateway, error, scope, send)
        return
    except Exception:
        logger.exception("a bridge could not be built")
        await _refuse(gateway, _unavailable("the gateway cannot serve this caller now"), scope, send)
        return
    try:
        await bridge(scope, receive, send)
    finally:
        lease.release()


class _Refusal(Response):
    """An error in the shape of the provider that was asked for."""

    def __init__(self, gateway: Gateway, error: GatewayError) -> None:
        self._gateway = gateway
        self._error = error
        self.background = None
        self.status_code = error.status

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        await _refuse(self._gateway, self._error, scope, send)


async def _refuse(gateway: Gateway, error: GatewayError, scope: Scope, send: Send) -> None:
    name = scope["path_params"]["provider"]
    provider = next((one for one in gateway.pool.providers if one.name == name), None)
    gateway.refused(error.code)
    await send_error(send, provider, error, path=scope["path"])


def _below_prefix(scope: Scope) -> Scope:
    """The scope as a mounted app gets it: what comes before the provider's name is the root path."""
    params = scope["path_params"]
    tail = len(params["provider"]) + len(params["path"]) + 2
    return {**scope, "root_path": scope["path"][:-tail]}


def _without(scope: Scope, hidden: Declared) -> Scope:
    """The scope without what the app's dependencies keep to themselves, the caller's credentials above all.

    Those that stand where the providers' own do stay: the bridge needs them to tell whose key pays.
    """
    names = hidden.headers - _KEYS
    headers = [pair for pair in scope["headers"] if pair[0] not in names]
    query = scope["query_string"]
    if hidden.query and query:
        pieces = query.split(b"&")
        query = b"&".join(piece for piece in pieces if unquote_plus(_name(piece)) not in hidden.query)
    return {**scope, "headers": headers, "query_string": query}


_KEYS = frozenset({b"authorization", b"x-api-key", b"x-aibridge-token"})


def _name(piece: bytes) -> str:
    return piece.partition(b"=")[0].decode("latin-1")


def _only_tried(scope: Scope) -> bool:
    """Whether FastAPI asks for a path with a slash added, in order to redirect there."""
    raw_path: bytes = scope.get("raw_path") or b"/"
    return scope["path"].endswith("/") and not raw_path.lower().endswith((b"/", b"%2f"))


def _context(scope: Scope) -> Any:
    """How the route was included; FastAPI tells that in the scope since 0.137."""
    return scope.get("fastapi", {}).get("effective_route_context")


def _unadorned(scope: Scope) -> bool:
    """Whether nothing but the route itself has a say: no dependency, body limit or override of the app's.

    Where that is not known, the answer is no, which is slower and never wrong.
    """
    context = _context(scope)
    return (
        context is not None
        and not context.dependencies
        and getattr(context, "max_body_size", None) is None
        and not scope["app"].dependency_overrides
    )


def _not_allowed(method: str) -> GatewayError:
    return GatewayError(
        405, "method_not_allowed", f"{method[:16]} is not relayed", headers={"allow": ", ".join(METHODS)}
    )


def _told(error: HTTPException) -> GatewayError:
    """What the app's own dependency raised, as an error that the provider's SDKs can read."""
    code = _CODES.get(error.status_code, "invalid_request" if error.status_code < 500 else "server_error")
    return GatewayError(error.status_code, code, str(error.detail), headers=error.headers)


def _no_principal(error: PrincipalError) -> GatewayError:
    if error.by_caller:
        return GatewayError(400, "invalid_principal", str(error))
    logger.error("the principal dependency is wrong: %s", error)
    return GatewayError(500, "invalid_principal", f"the app's principal dependency is wrong: {error}")


def _where(error: RequestValidationError) -> str:
    places = {".".join(str(part) for part in problem["loc"]): problem["msg"] for problem in error.errors()}
    return "; ".join(f"{place}: {message}" for place, message in places.items())


def _unavailable(message: str, headers: dict[str, str] | None = None) -> GatewayError:
    return GatewayError(503, "unavailable", message, headers={"retry-after": "5", **(headers or {})})
