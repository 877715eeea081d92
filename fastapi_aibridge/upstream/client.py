"""The HTTP client that all bridges of an app share."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Self

from ..errors import AIBridgeError, GatewayError, UpstreamUnreachable
from .connection import Connection
from .connections import CONNECTIONS_PER_ORIGIN, ConnectionPools, OriginPool
from .connector import Connector
from .failures import BROKEN_OFF, not_connected
from .message import RequestBody, RequestHeaders
from .origin import Origin, TimeLimits
from .response import UpstreamResponse


class UpstreamClient:
    """Sends requests upstream: no cookies, no redirects, no content codings. Bytes are sent and received unchanged.

    It is built on asyncio's protocols and llhttp, because the data plane needs exact bytes and little else.
    """

    def __init__(self, *, per_origin: int = CONNECTIONS_PER_ORIGIN) -> None:
        self._per_origin = per_origin
        self._connector = Connector()
        self._pools: ConnectionPools | None = None

    async def __aenter__(self) -> Self:
        self._pools = ConnectionPools(per_origin=self._per_origin)
        return self

    async def __aexit__(self, *_: object) -> None:
        pools, self._pools = self._pools, None
        if pools is not None:
            await pools.close()

    def __len__(self) -> int:
        """The number of connections to all origins."""
        return len(self._pools or ())

    async def send(
        self,
        origin: Origin,
        method: str,
        target: bytes,
        headers: RequestHeaders,
        body: RequestBody,
        limits: TimeLimits,
        *,
        repeatable: bool = True,
    ) -> UpstreamResponse:
        """Return the response once its head has arrived, with any final status. `target` is path and query.

        Raises `UpstreamUnreachable`, `UpstreamTimeout`, and `GatewayError` for a header that cannot be sent.

        If a connection that had been idle breaks off before the first byte of a response, the request is sent once more
        on a new one: the server may just have closed the old one. A request that is not `repeatable` is not sent again,
        because the server may have acted on it.
        """
        if self._pools is None:
            raise AIBridgeError("the upstream client is not open: it lives as long as the app's lifespan")
        pool = self._pools.of(origin)
        connection, again = pool.take_free(), False
        while True:
            was_idle = connection is not None
            if connection is None:
                connection, was_idle = await self._acquire(pool, origin, limits, fresh=again)
            try:
                response = connection.send(method, target, pool.authority, headers, body, limits)
            except GatewayError:  # nothing has been sent
                connection.free()
                raise
            except BaseException:
                connection.close()
                raise
            try:
                await response.until_head()
            except UpstreamUnreachable:
                if again or not (was_idle and repeatable) or response.heard:
                    raise
                connection, again = None, True
            except BaseException:
                response.close()
                raise
            else:
                return response

    async def _acquire(
        self, pool: OriginPool, origin: Origin, limits: TimeLimits, *, fresh: bool
    ) -> tuple[Connection, bool]:
        """Return a connection that can take a request, and whether it had been used before."""
        await self._connector.prepare(origin)
        try:
            async with asyncio.timeout(limits.connect):
                connection, was_idle = await pool.acquire(partial(self._connector.connect, origin), fresh=fresh)
        except TimeoutError as error:
            failure = not_connected(error, str(origin))
            self._connector.failed(origin, failure.cause)
        else:
            if connection.is_open:
                return connection, was_idle
            failure = BROKEN_OFF
        raise failure.error()
