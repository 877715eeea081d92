"""The HTTP client that all bridges of an app share, and what its failures mean."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable
from contextvars import ContextVar
from enum import Enum, auto
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

import aiohttp
from aiohttp import hdrs
from yarl import URL

from ..errors import AIBridgeError, GatewayError, UpstreamTimeout, UpstreamUnreachable
from .protocol import Protocol

CONNECTIONS_PER_HOST = 4096
"""More than one process serves at a time, so that it bounds a runaway and never a busy hour."""

LARGE_BODY = 2**20
"""Bytes; aiohttp sends more than that piece by piece and lets others run in between, but only from a file."""

AHEAD = 4 * 2**20
"""Bytes of an answer that is no stream which are waited for before its relay begins."""

_FAILURES = (aiohttp.ClientError, OSError, asyncio.TimeoutError)
_HANG_UPS = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, aiohttp.ClientConnectionResetError)

RawHeaders = tuple[tuple[bytes, bytes], ...]


class UpstreamResponse(aiohttp.ClientResponse):
    """A response, and what the gateway has to say of how it was got."""

    notes: RawHeaders = ()
    """Headers for the client, in lower case, that take the place of the upstream's of the same names."""
    ahead: bytes = b""
    """What has been read of the body and not been handed out."""
    broken: GatewayError | None = None
    """What comes after that, where the body broke off."""

    async def read_ahead(self) -> None:
        """Wait for the first bytes of a stream, or for the whole of another answer, up to `AHEAD` bytes of it.

        `read_some` begins with them; what breaks off here can still be asked for again. Raises as `read_some` does.
        """
        stream = self.headers.get("content-type", "").startswith("text/event-stream")
        pieces: list[bytes] = []
        room = AHEAD
        try:
            while room > 0 and (piece := await self.content.readany()):
                pieces.append(piece)
                room = 0 if stream else room - len(piece)
        except _FAILURES as error:
            self.broken = meaning_of(error)
            self.broken.upstream_status = self.status
            rest = leftovers(self) if stream else b""
            if not rest:
                self.close()
                raise self.broken from error
            pieces = [rest]
        except BaseException:
            self.close()
            raise
        self.ahead = pieces[0] if len(pieces) == 1 else b"".join(pieces)


class _Pooled(Enum):
    """What a request and the pool of connections have to do with each other."""

    MAY = auto()
    WAS = auto()
    MUST_NOT = auto()


_pooled: ContextVar[_Pooled] = ContextVar("fastapi_aibridge_pooled", default=_Pooled.MAY)


class _Connector(aiohttp.TCPConnector):
    """Tells whether a request got a connection that had been used before, and can be told not to give it one.

    Needed because a server may close an idle connection just when the next request is sent on it; aiohttp repeats
    such a request only where its method is idempotent.
    """

    def __init__(self) -> None:
        super().__init__(limit=0, limit_per_host=CONNECTIONS_PER_HOST, ttl_dns_cache=30)
        self._factory = partial(Protocol, self._loop)  # type: ignore[assignment]

    if not TYPE_CHECKING:  # its argument and result are none of aiohttp's public names

        async def _get(self, key, traces):
            if _pooled.get() is _Pooled.MUST_NOT:
                return None
            connection = await super()._get(key, traces)
            if connection is not None:
                _pooled.set(_Pooled.WAS)
            return connection


class UpstreamClient:
    """Sends requests upstream. One connection pool, no cookies, no redirects, no proxy or netrc from the environment.

    aiohttp because it hands out raw bytes and exact headers, and costs a third of what httpx does.
    """

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=_Connector(),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=(hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.CONTENT_TYPE, hdrs.USER_AGENT),
            trust_env=False,
            read_bufsize=2**17,
            response_class=UpstreamResponse,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def send(
        self, method: str, url: URL, headers: list[tuple[str, str]], body: bytes, limits: aiohttp.ClientTimeout
    ) -> UpstreamResponse:
        """The response once its headers are there. Raises `UpstreamUnreachable` or `UpstreamTimeout`.

        A request that breaks off on a connection which had been idle is sent again, once, on a new one.
        """
        _pooled.set(_Pooled.MAY)
        try:
            return await self._request(method, url, headers, body, limits)
        except _HANG_UPS as error:
            if _pooled.get() is not _Pooled.WAS or isinstance(error, aiohttp.ClientConnectorError):
                raise meaning_of(error) from error
        except _FAILURES as error:
            raise meaning_of(error) from error
        _pooled.set(_Pooled.MUST_NOT)
        try:
            return await self._request(method, url, headers, body, limits)
        except _FAILURES as error:
            raise meaning_of(error) from error

    async def _request(
        self, method: str, url: URL, headers: list[tuple[str, str]], body: bytes, limits: aiohttp.ClientTimeout
    ) -> UpstreamResponse:
        if self._session is None:
            raise AIBridgeError("the upstream client is not open: it lives as long as the app's lifespan")
        data = io.BytesIO(body) if len(body) > LARGE_BODY else body or None
        request = self._session.request(method, url, headers=headers, data=data, timeout=limits, allow_redirects=False)
        response = await cast("Awaitable[UpstreamResponse]", request)
        if not 200 <= response.status < 600:
            # The interim ones are aiohttp's to read, a change of protocol nobody asked for, and servers fail on others.
            response.close()
            raise UpstreamUnreachable(f"the upstream answered with status {response.status}, which is none")
        return response


def meaning_of(error: BaseException) -> GatewayError:
    """What a failure of the connection is to the client. Says nothing that a URL or header could have put into it."""
    if isinstance(error, asyncio.TimeoutError):
        return UpstreamTimeout("the upstream did not answer in time")
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        return UpstreamUnreachable("the upstream's TLS certificate or handshake is not acceptable", sent=False)
    if isinstance(error, aiohttp.ClientConnectorError):
        return UpstreamUnreachable("the upstream cannot be reached", sent=False)
    return UpstreamUnreachable("the upstream broke the connection off")


async def read_some(response: aiohttp.ClientResponse) -> bytes:
    """The next raw bytes of the body, empty at its end. Raises `UpstreamUnreachable` or `UpstreamTimeout`."""
    try:
        if isinstance(response, UpstreamResponse):
            if response.ahead:
                ahead, response.ahead = response.ahead, b""
                return ahead
            if response.broken is not None:
                raise response.broken
        return await response.content.readany()
    except _FAILURES as error:
        raise meaning_of(error) from error


async def hold(response: aiohttp.ClientResponse, until: Awaitable[None]) -> None:
    """Wait, and leave what comes of the body in the socket meanwhile, at no cost but the sender's."""
    connection = response.connection
    protocol = connection.protocol if connection is not None else None
    if not isinstance(protocol, Protocol):  # all of the body has come
        await until
        return
    protocol.hold()
    try:
        await until
    finally:
        protocol.go_on()


def leftovers(response: aiohttp.ClientResponse) -> bytes:
    """What had arrived when the connection broke: aiohttp raises before it hands that out."""
    content = response.content
    content.set_exception(None)  # type: ignore[arg-type]
    return content.read_nowait()
