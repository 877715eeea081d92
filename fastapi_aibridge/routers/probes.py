"""Probes that clients send before they call: whether a provider exists, and whether it takes WebSockets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from fastapi import APIRouter, Request, Response, WebSocket
from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Message, Scope, Send

from ..errors import GatewayError
from ..exchange.error_response import send_error
from ..host import Host
from ..settings import RESERVED_NAMES
from .serving import provider_of, refuse

PROBED = frozenset({"", "api/hello"})
"""Paths below a provider to which clients send a HEAD request before they have a key."""
_SOCKET = "v1/responses"

Probe: TypeAlias = Callable[[Host, Scope, Send], Awaitable[None]]


def add_probe_routes(router: APIRouter, host: Host) -> None:
    """Add the routes for probes that the data plane's own route does not match."""

    async def is_there(request: Request) -> Response:
        return _Written(host, request.scope)

    async def no_sockets(websocket: WebSocket) -> None:
        await _refuse_socket(host, websocket)

    router.add_api_route(
        "/{provider}", is_there, methods=["HEAD"], include_in_schema=False, route_class_override=_ProbeRoute
    )
    router.add_websocket_route(f"/{{provider}}/{_SOCKET}", no_sockets)


def probe_of(scope: Scope) -> Probe | None:
    """Return the probe that answers this request; None if it is no probe."""
    method = scope["method"]
    if method == "HEAD":
        return _is_there if scope["path_params"]["path"] in PROBED else None
    if method == "GET" and scope["path_params"]["path"] == _SOCKET:
        wanted = [value for name, value in scope["headers"] if name == b"upgrade"]
        return _needs_http if any(b"websocket" in value.lower() for value in wanted) else None
    return None


class _ProbeRoute(APIRoute):
    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child = super().matches(scope)
        # For other methods this route does not exist, so that they are answered as without it.
        if match is not Match.FULL or child["path_params"]["provider"] in RESERVED_NAMES:
            return Match.NONE, {}
        return match, child


class _Written(Response):
    def __init__(self, host: Host, scope: Scope) -> None:
        self._host = host
        self._scope = scope
        self.background = None
        self.status_code = 200

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:  # noqa: ARG002 - ASGI
        await _is_there(self._host, self._scope, send)


async def _is_there(host: Host, scope: Scope, send: Send) -> None:
    provider = provider_of(host, scope)
    if provider is None or not provider.enabled:
        name = scope["path_params"]["provider"]
        await refuse(host, GatewayError(404, "unknown_provider", f"there is no provider {name[:64]!r}"), scope, send)
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


async def _needs_http(host: Host, scope: Scope, send: Send) -> None:
    await refuse(host, _upgrade_required(), scope, send)


async def _refuse_socket(host: Host, websocket: WebSocket) -> None:
    """Answer the handshake with an error status: clients that see it continue with HTTP at once."""
    if "websocket.http.response" not in websocket.scope.get("extensions", {}):
        await websocket.close()
        return

    async def send(message: Message) -> None:
        await websocket.send({**message, "type": f"websocket.{message['type']}"})

    await websocket.receive()
    provider = provider_of(host, websocket.scope)
    host.refused("upgrade_required")
    await send_error(send, provider, _upgrade_required(), path=websocket.scope["path"])


def _upgrade_required() -> GatewayError:
    return GatewayError(
        426,
        "upgrade_required",
        "the gateway speaks no WebSocket here; send the same request by POST",
        headers={"upgrade": "HTTP/1.1"},
    )
