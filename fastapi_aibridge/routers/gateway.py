"""The data plane: one route that hands each request to its principal's bridge."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from ..bridge import RequestBridge
from ..credentials import caller_token
from ..dependencies import checked
from ..errors import GatewayError, PoolShutdown
from ..pool import CachedBridgePool
from ..principal import Principal
from ..providers import Provider
from ..refusal import send_error
from ..settings import RESERVED_NAMES

logger = logging.getLogger(__name__)

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]

_CODES = {401: "invalid_api_key", 403: "forbidden", 429: "rate_limit_exceeded"}


class Gateway(Protocol):
    """What the route needs of the plugin."""

    @property
    def pool(self) -> CachedBridgePool[RequestBridge, Provider]: ...

    def known_principal(self, token: bytes | None) -> Principal | None:
        """Whose built-in client key this is."""


def add_gateway_route(router: APIRouter, gateway: Gateway, principal: Callable[..., Any], *, built_in: bool) -> None:
    """Add the route; `built_in` says that `principal` is the gateway's own check of client keys.

    FastAPI's machinery for a request costs as much as all the rest of it, so the route steps around it where it has
    nothing to do: built-in principal, no overrides, nothing that the app or an including router adds.
    """

    async def relay(caller: object = Depends(principal)) -> Response:
        return _BridgeResponse(gateway, checked(caller))

    class GatewayRoute(APIRoute):
        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            match, child = super().matches(scope)
            if match is not Match.NONE and child["path_params"]["provider"] in RESERVED_NAMES:
                return Match.NONE, {}
            return match, child

        async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
            if built_in and scope["method"] in METHODS and _unadorned(scope):
                caller = gateway.known_principal(caller_token(dict(scope["headers"])))
                if caller is None:
                    await _refuse(gateway, unauthorized(), scope, send)
                else:
                    await _serve(gateway, caller, scope, receive, send)
            else:
                await super().handle(scope, receive, send)

        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            by_fastapi = super().get_route_handler()

            async def handle(request: Request) -> Response:
                try:
                    return await by_fastapi(request)
                except HTTPException as error:
                    return _Refusal(gateway, _told(error))
                except RequestValidationError as error:
                    return _Refusal(gateway, GatewayError(422, "invalid_request", _where(error)))

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
        self.background = None
        self.status_code = 200

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _serve(self._gateway, self._principal, scope, receive, send)
        if self.background is not None:
            await self.background()


async def _serve(gateway: Gateway, principal: Principal, scope: Scope, receive: Receive, send: Send) -> None:
    lease = gateway.pool.acquire(principal)
    try:
        bridge = await lease.__aenter__()
    except PoolShutdown as error:
        await _refuse(gateway, _unavailable(str(error), {"connection": "close"}), scope, send)
        return
    except Exception:
        logger.exception("a bridge could not be built")
        await _refuse(gateway, _unavailable("the gateway cannot serve this caller now"), scope, send)
        return
    try:
        await bridge(_below_prefix(scope), receive, send)
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
    await send_error(send, provider, error, path=scope["path"])


def _below_prefix(scope: Scope) -> Scope:
    """The scope as a mounted app gets it: what comes before the provider's name is the root path."""
    params = scope["path_params"]
    tail = len(params["provider"]) + len(params["path"]) + 2
    return {**scope, "root_path": scope["path"][:-tail]}


def _unadorned(scope: Scope) -> bool:
    """Whether nothing but the route itself has a say: no dependency, body limit or override of the app's.

    FastAPI tells that in the scope since 0.137; where it does not, the answer is no, which is slower and never wrong.
    """
    context = scope.get("fastapi", {}).get("effective_route_context")
    return (
        context is not None
        and not context.dependencies
        and context.max_body_size is None
        and not scope["app"].dependency_overrides
    )


def _told(error: HTTPException) -> GatewayError:
    """What the app's own dependency raised, as an error that the provider's SDKs can read."""
    code = _CODES.get(error.status_code, "invalid_request" if error.status_code < 500 else "server_error")
    return GatewayError(error.status_code, code, str(error.detail), headers=error.headers)


def _where(error: RequestValidationError) -> str:
    places = {".".join(str(part) for part in problem["loc"]): problem["msg"] for problem in error.errors()}
    return "; ".join(f"{place}: {message}" for place, message in places.items())


def _unavailable(message: str, headers: dict[str, str] | None = None) -> GatewayError:
    return GatewayError(503, "unavailable", message, headers={"retry-after": "5", **(headers or {})})
