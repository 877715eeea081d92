"""Whom a connection is made to, and how: what two requests must have in common to share one."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit

from ..errors import ConfigurationError
from .proxy import Proxy

DEFAULT_PORTS = {"http": 80, "https": 443}


class TimeLimits(NamedTuple):
    """Seconds; `None` is without end."""

    connect: float | None = None
    """For a connection to be there: the name looked up, TCP, proxy and TLS, and a place where all are taken."""
    first_byte: float | None = None
    """From the last byte of the request that could be written to the first byte of the answer."""
    silence: float | None = None
    """Between two pieces of an answer."""


class Origin(NamedTuple):
    """Scheme, host and port (RFC 9110, section 4.3.1), and what leads there."""

    scheme: str
    host: str
    """A name, or an address without brackets."""
    port: int
    ca_file: str | None = None
    """PEM file of the authorities that are trusted in place of the system's."""
    client_cert: str | None = None
    """PEM file of a certificate and its key."""
    proxy: Proxy | None = None
    named: str | None = None
    """What `Host` says in place of host and port."""

    @property
    def authority(self) -> str:
        """Host and port, as `Host` has them: without a port that goes without saying."""
        if self.named is not None:
            return self.named
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def is_secure(self) -> bool:
        return self.scheme == "https"

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def origin_of(
    url: str,
    *,
    ca_file: str | None = None,
    client_cert: str | None = None,
    proxy: Proxy | None = None,
    authority: str | None = None,
) -> tuple[Origin, str]:
    """The origin of an http or https URL, and its path without a slash at the end. Raises `ConfigurationError`."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname or port == -1:
        raise ConfigurationError(f"{parts.scheme}://{parts.hostname or ''} is no URL of http or https")
    host = parts.hostname if parts.hostname.isascii() else parts.hostname.encode("idna").decode()
    origin = Origin(parts.scheme, host, port or DEFAULT_PORTS[parts.scheme], ca_file, client_cert, proxy, authority)
    return origin, parts.path.rstrip("/")
