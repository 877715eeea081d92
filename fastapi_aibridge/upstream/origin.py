"""The origin of a connection: all that two requests must have in common to share one."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit

from ..errors import ConfigurationError
from .proxy import Proxy

DEFAULT_PORTS = {"http": 80, "https": 443}


class TimeLimits(NamedTuple):
    """Time limits of a request in seconds; `None` means no limit."""

    connect: float | None = None
    """Time to get a connection: name resolution, TCP, proxy and TLS, and the wait where all are in use."""
    first_byte: float | None = None
    """Time from the last byte of the request that could be written to the head of the response."""
    silence: float | None = None
    """Time between two pieces of a response."""


class Origin(NamedTuple):
    """Scheme, host and port (RFC 9110, section 4.3.1), and the means to connect to them."""

    scheme: str
    host: str
    """Name, or address without brackets."""
    port: int
    ca_file: str | None = None
    """PEM file of the authorities that are trusted in place of the system's."""
    client_cert: str | None = None
    """PEM file of a certificate and its key."""
    proxy: Proxy | None = None
    named: str | None = None
    """Value of the `Host` header, in place of host and port."""

    @property
    def authority(self) -> str:
        """The value of the `Host` header: host and port, without a default port."""
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
    """Return the origin of an http or https URL, and its path without a final slash. Raises `ConfigurationError`."""
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
