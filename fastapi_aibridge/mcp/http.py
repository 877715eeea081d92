"""HTTP to MCP servers: the only file of this folder that knows the HTTP library.

No redirect is followed, nothing of a caller is kept, and nothing is taken from the environment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp.client_proto import ResponseHandler

from ..errors import AIBridgeError
from .problems import ConnectionBroken, MCPProblem, TooLarge, Unreachable

CONNECTIONS_PER_SERVER = 512
"""Sockets to one server in this process; calls beyond wait for one."""
CONNECT_TIMEOUT = 5.0
"""Seconds until a connection stands, TLS included."""
DRAIN_TIMEOUT = 1.0
"""Seconds that the rest of an answer is waited for, so that its connection can be used again."""
DRAIN_SIZE = 64 * 1024
"""Bytes that such a rest may have."""


class _Connection(ResponseHandler):
    """Counts as gone once it has received anything that nobody asked for: the next request would take that for its
    answer.
    """

    def is_connected(self) -> bool:
        return super().is_connected() and not self.should_close


class _Connector(aiohttp.TCPConnector):
    def __init__(self) -> None:
        super().__init__(limit=0, limit_per_host=CONNECTIONS_PER_SERVER, ttl_dns_cache=30)
        self._factory = partial(_Connection, self._loop)  # type: ignore[assignment]


class HTTPResponse:
    """The head of an answer, and its body as it comes."""

    __slots__ = ("_response", "content_type", "status")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.content_type = response.content_type

    def header(self, name: str) -> str | None:
        return self._response.headers.get(name)

    def headers(self, name: str) -> list[str]:
        return self._response.headers.getall(name, [])

    async def read_some(self) -> bytes:
        """The next bytes of the body, none at its end. Raises `ConnectionBroken`."""
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise ConnectionBroken from error

    async def body(self, limit: int) -> bytes:
        """All of it. Raises `ConnectionBroken` and `TooLarge`."""
        body = bytearray()
        while piece := await self.read_some():
            body += piece
            if len(body) > limit:
                raise TooLarge(limit)
        return bytes(body)

    def close(self) -> None:
        """Hang up."""
        self._response.close()

    def release(self, spawn: Callable[[Coroutine[Any, Any, None]], object]) -> None:
        """Done with it: its connection serves others once the rest of the answer has come, if that is soon."""
        if self._response.content.at_eof():
            self._response.close()
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
    """One pool of connections for all principals; a connection carries no credential of its own."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=_Connector(),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "fastapi-aibridge", "Accept-Encoding": "identity"},
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def request(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> HTTPResponse:
        """The response once its head is there. Raises `Unreachable`, `ConnectionBroken`, or another `MCPProblem`."""
        if self._session is None:
            raise AIBridgeError("the MCP connections are not open: they live as long as the app's lifespan")
        try:
            return HTTPResponse(
                await self._session.request(
                    method,
                    url,
                    headers=headers,
                    data=body,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT),
                )
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            raise Unreachable from None
        except (aiohttp.ClientError, OSError) as error:
            raise ConnectionBroken from error
        except ValueError:
            raise MCPProblem("its URL and headers do not make a request") from None
