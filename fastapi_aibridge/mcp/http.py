"""HTTP to MCP servers: the only module of this folder that knows the HTTP client.

Redirects are not followed, nothing of a caller is kept, and the environment is ignored.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, NamedTuple, Self
from urllib.parse import quote, unquote, urlsplit

from cachetools import LRUCache

from ..errors import ConfigurationError, GatewayError, UpstreamUnreachable
from ..upstream.client import UpstreamClient
from ..upstream.origin import Origin, TimeLimits, origin_of
from ..upstream.response import UpstreamResponse
from .problems import ConnectionBroken, MCPProblem, TooLarge, Unreachable

CONNECTIONS_PER_SERVER = 512
"""Sockets to one server in this process; further calls wait for one."""
CONNECT_TIMEOUT = 5.0
"""Seconds to get a place in the pool and to connect, TLS included."""
DRAIN_TIMEOUT = 1.0
"""Seconds to wait for the rest of a response, so that its connection can be used again."""
DRAIN_SIZE = 64 * 1024
"""Bytes of such a rest."""
MAX_ENDPOINTS = 1024
"""URLs whose parsed parts are cached."""

_HEADERS = {"user-agent": "fastapi-aibridge", "accept-encoding": "identity"}
_LIMITS = TimeLimits(connect=CONNECT_TIMEOUT)


class HTTPResponse:
    """The head of a response, and its body as it arrives."""

    __slots__ = ("_response", "content_type", "status")

    def __init__(self, response: UpstreamResponse) -> None:
        self._response = response
        self.status = response.status
        self.content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()

    def header(self, name: str) -> str | None:
        """Return the value of a header, or None. `name` is in lower case."""
        return self._response.headers.get(name)

    def headers(self, name: str) -> list[str]:
        """Return all values of a header. `name` is in lower case."""
        wanted = name.encode()
        return [value.decode("latin-1") for one, value in self._response.raw_headers if one == wanted]

    async def read_some(self) -> bytes:
        """Return the next bytes of the body, empty at its end. Raises `ConnectionBroken`."""
        try:
            return await self._response.read_some()
        except GatewayError:
            raise ConnectionBroken from None

    async def body(self, limit: int) -> bytes:
        """Return the whole body. Raises `ConnectionBroken`, and `TooLarge` beyond `limit` bytes."""
        body = bytearray()
        while piece := await self.read_some():
            body += piece
            if len(body) > limit:
                raise TooLarge(limit)
        return bytes(body)

    def close(self) -> None:
        """Close the connection, unless the response is complete."""
        self._response.close()

    def release(self, spawn: Callable[[Coroutine[Any, Any, None]], object]) -> None:
        """Finish with the response. Its connection is used again once the rest has arrived, if that is soon."""
        if self._response.complete:
            self.close()
        else:
            spawn(self._drain())

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT):
                await self.body(DRAIN_SIZE)
        except (MCPProblem, TimeoutError):
            pass
        finally:
            self.close()


class HTTPClient:
    """One pool of connections for all principals; a connection carries no credentials of its own."""

    def __init__(self) -> None:
        self._client = UpstreamClient(per_origin=CONNECTIONS_PER_SERVER)
        self._endpoints: LRUCache[str, _Endpoint] = LRUCache(MAX_ENDPOINTS)

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.__aexit__()

    def __len__(self) -> int:
        """The number of sockets to all servers."""
        return len(self._client)

    async def request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, *, repeatable: bool
    ) -> HTTPResponse:
        """Return the response once it has begun. Raises `Unreachable`, `ConnectionBroken`, or another `MCPProblem`.

        Names of headers are in lower case. A `repeatable` request may be sent again if it failed on a connection that
        had been idle and may just have been closed.
        """
        endpoint = self._endpoints.get(url)
        if endpoint is None:
            endpoint = self._endpoints[url] = _endpoint(url)
        try:
            fields = [
                (name.encode("ascii"), value.encode("latin-1"))
                for name, value in ({**_HEADERS, **endpoint.headers, **headers}).items()
            ]
            response = await self._client.send(
                endpoint.origin, method, endpoint.target, fields, body or b"", _LIMITS, repeatable=repeatable
            )
        except UpstreamUnreachable as error:
            raise ConnectionBroken() if error.sent else Unreachable() from None
        except GatewayError as error:
            raise (Unreachable() if error.status == 504 else _no_request()) from None
        except UnicodeEncodeError:
            raise _no_request() from None
        return HTTPResponse(response)


class _Endpoint(NamedTuple):
    origin: Origin
    target: bytes
    """Path and query."""
    headers: Mapping[str, str]
    """The credentials in the URL, as a header."""


def _endpoint(url: str) -> _Endpoint:
    try:
        origin, _ = origin_of(url)
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        headers = {}
        if parts.username is not None or parts.password is not None:
            pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
            headers["authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        return _Endpoint(origin, quote(target, safe="%/:?#[]@!$&'()*+,;=-._~").encode("ascii"), headers)
    except (ConfigurationError, ValueError):
        raise _no_request() from None


def _no_request() -> MCPProblem:
    return MCPProblem("its URL and headers do not make a request")
