"""The HTTP client that all bridges of an app share, and what its failures mean."""

from __future__ import annotations

import asyncio
import io
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import hdrs
from yarl import URL

from ..errors import AIBridgeError, GatewayError, UpstreamTimeout, UpstreamUnreachable

CONNECTIONS_PER_HOST = 4096
"""More than one process serves at a time, so that it bounds a runaway and never a busy hour."""

LARGE_BODY = 2**20
"""Bytes; aiohttp sends more than that piece by piece and lets others run in between, but only from a file."""

_FAILURES = (aiohttp.ClientError, OSError, asyncio.TimeoutError)


class UpstreamClient:
    """Sends requests upstream. One connection pool, no cookies, no redirects, no proxy or netrc from the environment.

    aiohttp because it hands out raw bytes and exact headers, and costs a third of what httpx does.
    """

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, limit_per_host=CONNECTIONS_PER_HOST, ttl_dns_cache=30),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=(hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.CONTENT_TYPE, hdrs.USER_AGENT),
            trust_env=False,
            read_bufsize=2**17,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def send(
        self, method: str, url: URL, headers: list[tuple[str, str]], body: bytes, limits: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        """The response once its headers are there. Raises `UpstreamUnreachable` or `UpstreamTimeout`."""
        if self._session is None:
            raise AIBridgeError("the upstream client is not open: it lives as long as the app's lifespan")
        data = io.BytesIO(body) if len(body) > LARGE_BODY else body or None
        try:
            return await self._session.request(
                method, url, headers=headers, data=data, timeout=limits, allow_redirects=False
            )
        except _FAILURES as error:
            raise meaning_of(error) from error


def meaning_of(error: BaseException) -> GatewayError:
    """What a failure of the connection is to the client. Says nothing that a URL or header could have put into it."""
    if isinstance(error, asyncio.TimeoutError):
        return UpstreamTimeout("the upstream did not answer in time")
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        return UpstreamUnreachable("the upstream's TLS certificate or handshake is not acceptable")
    if isinstance(error, aiohttp.ClientConnectorError):
        return UpstreamUnreachable("the upstream cannot be reached")
    return UpstreamUnreachable("the upstream broke the connection off")


async def read_some(response: aiohttp.ClientResponse) -> bytes:
    """The next raw bytes of the body, empty at its end. Raises `UpstreamUnreachable` or `UpstreamTimeout`."""
    try:
        return await response.content.readany()
    except _FAILURES as error:
        raise meaning_of(error) from error


def leftovers(response: aiohttp.ClientResponse) -> bytes:
    """What had arrived when the connection broke: aiohttp raises before it hands that out."""
    content = response.content
    content.set_exception(None)  # type: ignore[arg-type]
    return content.read_nowait()
