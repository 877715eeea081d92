"""The baseline: a bare ASGI relay on aiohttp, which parses no body, checks no key and records nothing."""

from __future__ import annotations

import os

from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from starlette.types import ASGIApp, Receive, Scope, Send
from yarl import URL

_NOT_UP = {b"host", b"content-length", b"connection", b"transfer-encoding"}
_NOT_DOWN = {b"connection", b"transfer-encoding", b"keep-alive"}
_AIOHTTPS_OWN = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


def build() -> ASGIApp:
    """The app for `uvicorn --factory`; `BENCH_UPSTREAM` is the base URL that it relays to."""
    return Relay(os.environ["BENCH_UPSTREAM"])


class Relay:
    def __init__(self, upstream: str) -> None:
        self._upstream = upstream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._relay(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        async with ClientSession(
            connector=TCPConnector(limit=0),
            cookie_jar=DummyCookieJar(),
            timeout=ClientTimeout(total=None),
            auto_decompress=False,
            skip_auto_headers=_AIOHTTPS_OWN,
        ) as self._session:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _relay(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        body = message["body"]
        while message["more_body"]:
            message = await receive()
            body += message["body"]
        async with self._session.request(
            scope["method"],
            URL(self._upstream + scope["path"], encoded=True),
            headers=[(name.decode(), value.decode()) for name, value in scope["headers"] if name not in _NOT_UP],
            data=body,
            allow_redirects=False,
        ) as response:
            headers = [(name.lower(), value) for name, value in response.raw_headers]
            headers = [(name, value) for name, value in headers if name not in _NOT_DOWN]
            await send({"type": "http.response.start", "status": response.status, "headers": headers})
            content = response.content
            more = True
            while more:
                chunk = await content.readany()
                more = not content.at_eof()
                await send({"type": "http.response.body", "body": chunk, "more_body": more})
