"""The baseline: a bare ASGI relay on aiohttp, which parses no body, checks no key and records nothing."""

from __future__ import annotations

import os

from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from starlette.types import ASGIApp, Scope, Send
from yarl import URL

from .bare import NOT_DOWN, NOT_UP, BareRelay

_AIOHTTPS_OWN = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


def build() -> ASGIApp:
    """The app for `uvicorn --factory`; `BENCH_UPSTREAM` is the base URL that it relays to."""
    return Relay(os.environ["BENCH_UPSTREAM"])


class Relay(BareRelay):
    def __init__(self, upstream: str) -> None:
        self._upstream = upstream

    def client(self) -> ClientSession:
        self._session = ClientSession(
            connector=TCPConnector(limit=0),
            cookie_jar=DummyCookieJar(),
            timeout=ClientTimeout(total=None),
            auto_decompress=False,
            skip_auto_headers=_AIOHTTPS_OWN,
        )
        return self._session

    async def relay(self, scope: Scope, body: bytes, send: Send) -> None:
        async with self._session.request(
            scope["method"],
            URL(self._upstream + scope["path"], encoded=True),
            headers=[(name.decode(), value.decode()) for name, value in scope["headers"] if name not in NOT_UP],
            data=body,
            allow_redirects=False,
        ) as response:
            headers = [(name.lower(), value) for name, value in response.raw_headers]
            headers = [(name, value) for name, value in headers if name not in NOT_DOWN]
            await send({"type": "http.response.start", "status": response.status, "headers": headers})
            content = response.content
            more = True
            while more:
                chunk = await content.readany()
                more = not content.at_eof()
                await send({"type": "http.response.body", "body": chunk, "more_body": more})
