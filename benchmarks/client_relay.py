"""The lower bound of the gateway's cost: a bare ASGI relay on the gateway's own upstream client."""

from __future__ import annotations

import os

from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_aibridge.upstream.client import UpstreamClient
from fastapi_aibridge.upstream.origin import TimeLimits, origin_of

_NOT_UP = {b"host", b"content-length", b"connection", b"transfer-encoding"}
_NOT_DOWN = {b"connection", b"transfer-encoding", b"keep-alive"}


def build() -> ASGIApp:
    """The app for `uvicorn --factory`; `BENCH_UPSTREAM` is the base URL that it relays to."""
    return Relay(os.environ["BENCH_UPSTREAM"])


class Relay:
    def __init__(self, upstream: str) -> None:
        self._origin, _ = origin_of(upstream)
        self._limits = TimeLimits(10, 600, 600)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._relay(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        async with UpstreamClient() as self._client:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _relay(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        body = message["body"]
        while message["more_body"]:
            message = await receive()
            body += message["body"]
        headers = [pair for pair in scope["headers"] if pair[0] not in _NOT_UP]
        response = await self._client.send(
            self._origin, scope["method"], scope["path"].encode(), headers, body, self._limits
        )
        try:
            down = [pair for pair in response.raw_headers if pair[0] not in _NOT_DOWN]
            await send({"type": "http.response.start", "status": response.status, "headers": down})
            while piece := await response.read_some():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            response.close()
