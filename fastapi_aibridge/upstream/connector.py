"""Makes connections: name resolution, TCP, a proxy's tunnel, TLS."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import TypeVar

from .addresses import Resolver, connected_socket
from .connection import Connection
from .failures import not_connected
from .origin import Origin
from .proxy import Tunnel, TunnelRefused
from .tls import TLSContexts

logger = logging.getLogger(__name__)

MAX_REMEMBERED = 1024
"""Origins whose last failure is remembered."""

T = TypeVar("T")


class Connector:
    """Makes connections, and logs an origin that cannot be reached: once per cause, until it can be reached again."""

    def __init__(self) -> None:
        self._resolver = Resolver()
        self._contexts = TLSContexts()
        self._failing: dict[Origin, str] = {}

    async def prepare(self, origin: Origin) -> None:
        """Read the certificates that connections will need. No time limit covers this, because it is done once.

        Raises `UpstreamUnreachable`.
        """
        if origin.is_secure:
            await self._logged(origin, self._contexts.get(origin.ca_file, origin.client_cert))

    async def connect(self, origin: Origin) -> Connection:
        """Connect to an origin. Raises `UpstreamUnreachable`; the caller sets the time limit."""
        loop = asyncio.get_running_loop()
        connection = await self._logged(origin, self._connect(loop, Connection(loop), origin))
        if self._failing and self._failing.pop(origin, None) is not None:
            logger.info("upstream %s can be reached again", origin)
        return connection

    async def _logged(self, origin: Origin, work: Awaitable[T]) -> T:
        """Await the work; log a failure, and raise it as `UpstreamUnreachable` or `UpstreamTimeout`."""
        try:
            return await work
        except (OSError, ssl.SSLError, ssl.CertificateError, TunnelRefused, UnicodeError) as error:
            failure = not_connected(error, _who(origin))
        self.failed(origin, failure.cause)
        raise failure.error()  # outside of `except`, so that it has no context, which may quote a URL

    def failed(self, origin: Origin, cause: str) -> None:
        """Log the cause of a failure, unless it is the one that was logged last."""
        if self._failing.get(origin) != cause:
            if len(self._failing) >= MAX_REMEMBERED:
                self._failing.clear()
            self._failing[origin] = cause
            logger.warning("an upstream cannot be reached: %s", cause)

    async def _connect(self, loop: asyncio.AbstractEventLoop, connection: Connection, origin: Origin) -> Connection:
        if origin.proxy is not None:
            return await self._through_proxy(loop, connection, origin)
        context = await self._contexts.get(origin.ca_file, origin.client_cert) if origin.is_secure else None
        sock = await self._socket(origin.host, origin.port)
        await _take_over(loop, lambda: connection, sock, context, origin.host)
        return connection

    async def _socket(self, host: str, port: int) -> socket.socket:
        addresses = await self._resolver.addresses(host, port)
        try:
            return await connected_socket(addresses)
        except OSError:
            self._resolver.forget(host, port)
            raise

    async def _through_proxy(
        self, loop: asyncio.AbstractEventLoop, connection: Connection, origin: Origin
    ) -> Connection:
        proxy = origin.proxy
        assert proxy is not None  # noqa: S101 - for the type checker
        sock = await self._socket(proxy.host, proxy.port)
        context = await self._contexts.get(None, None) if proxy.scheme == "https" else None
        tunnel = Tunnel()
        transport = await _take_over(loop, lambda: tunnel, sock, context, proxy.host)
        try:
            await tunnel.open(origin.host, origin.port, proxy.authorization)
            if origin.is_secure:
                inner = await self._contexts.get(origin.ca_file, origin.client_cert)
                secured = await loop.start_tls(transport, connection, inner, server_hostname=origin.host)
                if secured is None:
                    raise ConnectionResetError
                connection.connection_made(secured)
            else:
                transport.set_protocol(connection)
                connection.connection_made(transport)
        except BaseException:
            transport.abort()
            raise
        return connection


async def _take_over(
    loop: asyncio.AbstractEventLoop,
    protocol: Callable[[], asyncio.Protocol],
    sock: socket.socket,
    context: ssl.SSLContext | None,
    host: str,
) -> asyncio.Transport:
    """Return a transport over a connected socket; the socket is closed on failure."""
    try:
        transport, _ = await loop.create_connection(
            protocol, sock=sock, ssl=context, server_hostname=host if context is not None else None
        )
    except BaseException:
        sock.close()
        raise
    return transport


def _who(origin: Origin) -> str:
    if origin.proxy is None:
        return str(origin)
    return f"{origin} through the proxy {origin.proxy.host}:{origin.proxy.port}"
