"""The lower bound of the gateway's cost: a bare ASGI relay on the gateway's own upstream client."""

from __future__ import annotations

import os

from starlette.types import ASGIApp, Scope, Send

from fastapi_aibridge.upstream.client import UpstreamClient
from fastapi_aibridge.upstream.origin import TimeLimits, origin_of

from .bare import NOT_DOWN, NOT_UP, BareRelay


def build() -> ASGIApp:
    """The app for `uvicorn --factory`; `BENCH_UPSTREAM` is the base URL that it relays to."""
    return Relay(os.environ["BENCH_UPSTREAM"])


class Relay(BareRelay):
    def __init__(self, upstream: str) -> None:
        self._origin, _ = origin_of(upstream)
        self._limits = TimeLimits(10, 600, 600)

    def client(self) -> UpstreamClient:
        self._client = UpstreamClient()
        return self._client

    async def relay(self, scope: Scope, body: bytes, send: Send) -> None:
        headers = [pair for pair in scope["headers"] if pair[0] not in NOT_UP]
        response = await self._client.send(
            self._origin, scope["method"], scope["path"].encode(), headers, body, self._limits
        )
        try:
            down = [pair for pair in response.raw_headers if pair[0] not in NOT_DOWN]
            await send({"type": "http.response.start", "status": response.status, "headers": down})
            while piece := await response.read_some():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            response.close()
