"""HTTP proxies for outgoing connections: the choice of one, and the tunnel through it (RFC 9110, section 9.3.6)."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from ..errors import ConfigurationError
from .secret import Secret

FROM_ENVIRONMENT = "env"
"""Value of the setting that leaves the choice to `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`."""

MAX_ANSWER = 16 * 1024
"""Bytes of a proxy's response to CONNECT."""


class Proxy(NamedTuple):
    scheme: str
    """Protocol of the proxy itself, `http` or `https`."""
    host: str
    port: int
    authorization: Secret | None = None


class TunnelRefused(Exception):
    """The proxy opened no tunnel; the text says why."""


def proxy_for(setting: str | None, url: str) -> Proxy | None:
    """Return the proxy for a URL; `setting` is the proxy's own URL, `env`, or None for no proxy.

    Raises `ConfigurationError`.
    """
    if setting is None:
        return None
    if setting != FROM_ENVIRONMENT:
        return _parse(setting)
    from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

    known = getproxies_environment()
    parts = urlsplit(url)
    proxy = known.get(parts.scheme) or known.get("all")
    if not proxy or proxy_bypass_environment(parts.netloc, known):
        return None
    return _parse(proxy if "://" in proxy else f"http://{proxy}")


def _parse(url: str) -> Proxy:
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
        raise ConfigurationError("a proxy is a URL like http://user:password@proxy.example:3128")
    authorization = None
    if parts.username is not None:
        words = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        authorization = Secret(b"Basic " + b64encode(words), "Basic ...")
    return Proxy(parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80), authorization)


def _connect_request(authority: str, authorization: Secret | None) -> bytes:
    start = b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n" % (authority.encode("ascii"), authority.encode("ascii"))
    credentials = b"Proxy-Authorization: " + bytes(authorization) + b"\r\n" if authorization is not None else b""
    return start + credentials + b"\r\n"


class Tunnel(asyncio.Protocol):
    """A connection to a proxy, until its tunnel to the origin is open."""

    def __init__(self) -> None:
        self._received = b""
        self._ended = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment] # always a stream's

    def data_received(self, data: bytes) -> None:
        self._received += data
        if b"\r\n\r\n" in self._received or len(self._received) > MAX_ANSWER:
            self._end()

    def connection_lost(self, _error: Exception | None) -> None:
        self._end()

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    async def open(self, host: str, port: int, authorization: Secret | None) -> asyncio.Transport:
        """Open the tunnel, and return its transport. Raises `TunnelRefused`; the caller closes the transport then."""
        assert self._transport is not None  # noqa: S101 - connection_made comes first
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._transport.write(_connect_request(authority, authorization))
        await self._ended
        line, _, _ = self._received.partition(b"\r\n")
        version, _, status = line.partition(b" ")
        if not version.startswith(b"HTTP/1.") or not status[:3].isdigit():
            raise TunnelRefused("the proxy broke the connection off or does not speak HTTP")
        if status[:1] != b"2":
            raise TunnelRefused(f"the proxy refuses the tunnel with status {status[:3].decode()}")
        if not self._received.endswith(b"\r\n\r\n") or self._received.count(b"\r\n\r\n") != 1:
            raise TunnelRefused("the proxy sends more than its answer")
        return self._transport
