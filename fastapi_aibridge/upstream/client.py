"""The HTTP client that all bridges of an app share."""

from __future__ import annotations

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

from ..errors import AIBridgeError, UpstreamUnreachable
from .failures import FAILURES, meaning_of
from .protocol import Protocol
from .response import UpstreamResponse

CONNECTIONS_PER_HOST = 4096
"""More than one process serves at a time, so that it bounds a runaway and never a busy hour."""

LARGE_BODY = 2**20
"""Bytes; aiohttp sends more than that piece by piece and lets others run in between, but only from a file."""

_HANG_UPS = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, aiohttp.ClientConnectionResetError)


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
        except FAILURES as error:
            raise meaning_of(error) from error
        _pooled.set(_Pooled.MUST_NOT)
        try:
            return await self._request(method, url, headers, body, limits)
        except FAILURES as error:
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
