"""An httpx2 transport to an ASGI app in the same event loop, without a socket or a credential.

It hands out each event as it comes; httpx2's own ASGI transport collects the whole response first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from typing import cast

import httpx2
from starlette.types import ASGIApp, Scope

from ..credentials import TOKEN
from .call import Call, ResponseBroken

PLACEHOLDER = "in-process"
"""The key that SDKs require. This transport removes it."""

_KEYS = {b"authorization", b"x-api-key"}
_CREDENTIALS = {TOKEN, *_KEYS}


class InProcessTransport(httpx2.AsyncBaseTransport):
    """Sends each request to its path below `/{provider}`, whatever the host of its URL.

    `api_key` is the caller's own key for the provider, if they have one. A key in a request is passed on only together
    with `X-AIBridge-Token`, as over HTTP. Errors of the app are raised as they are, except for those that a socket has
    too: `httpx2.ReadTimeout` if nothing comes within the client's timeout, and `httpx2.RemoteProtocolError` if the
    response breaks off.
    """

    def __init__(self, app: ASGIApp, provider: str, api_key: str | None = None) -> None:
        self._app = app
        self._prefix = f"/{provider}"
        self._own = [] if api_key is None else [(TOKEN, b"own"), (b"authorization", f"Bearer {api_key}".encode())]

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        call = Call(self._app, self._scope(request), _content(request))
        body = _Body(call, request)
        with body.failing():
            async with asyncio.timeout(body.patience):
                head = await call.head()
        return httpx2.Response(head["status"], headers=head["headers"], stream=body)

    def _scope(self, request: httpx2.Request) -> Scope:
        url = request.url
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": url.scheme,
            "path": self._prefix + url.path,
            "raw_path": self._prefix.encode() + url.raw_path.partition(b"?")[0],
            "query_string": url.query,
            "root_path": "",
            "headers": self._headers(request),
            "client": None,
            "server": None,
        }

    def _headers(self, request: httpx2.Request) -> list[tuple[bytes, bytes]]:
        headers = [(name.lower(), value) for name, value in request.headers.raw]
        if self._own:
            return [pair for pair in headers if pair[0] not in _CREDENTIALS] + self._own
        own = any(name == TOKEN for name, _ in headers)
        return [pair for pair in headers if pair[0] not in _KEYS or (own and not _is_placeholder(pair[1]))]


class _Body(httpx2.AsyncByteStream):
    """The response's body. The call ends when the body is closed, garbage-collected, or fails to be read."""

    def __init__(self, call: Call, request: httpx2.Request) -> None:
        self._call = call
        self._request = request
        self.patience: float | None = request.extensions.get("timeout", {}).get("read")
        """Seconds to wait for the next bytes; None for no limit."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        more = True
        while more:
            with self.failing():
                async with asyncio.timeout(self.patience):
                    piece = await self._call.piece()
            more = bool(piece)
            if more:
                yield piece

    async def aclose(self) -> None:
        self._call.hang_up()

    def __del__(self) -> None:
        if not self._call.over:
            with suppress(RuntimeError):  # the loop is closed, and the call with it
                self._call.loop.call_soon_threadsafe(self._call.hang_up)

    @contextmanager
    def failing(self) -> Iterator[None]:
        """End the call on an error in the block, and raise the error that httpx2 would."""
        try:
            yield
        except TimeoutError as error:
            self._call.hang_up()
            raise httpx2.ReadTimeout(f"nothing came for {self.patience} s", request=self._request) from error
        except ResponseBroken as error:
            raise httpx2.RemoteProtocolError(str(error), request=self._request) from error.__cause__
        except BaseException:
            self._call.hang_up()
            raise


def _content(request: httpx2.Request) -> bytes | AsyncIterator[bytes]:
    try:
        return request.content
    except httpx2.RequestNotRead:
        return aiter(cast("httpx2.AsyncByteStream", request.stream))


def _is_placeholder(value: bytes) -> bool:
    return value.rpartition(b" ")[2] == PLACEHOLDER.encode()
