"""Decides which response headers reach the client, and adds the gateway's instructions to browsers."""

from __future__ import annotations

from functools import lru_cache

from ..upstream.message import RawHeaders
from .request_headers import plain_name

_STAYS = frozenset(
    b"""connection keep-alive proxy-authenticate proxy-authentication-info proxy-authorization proxy-connection te
    trailer transfer-encoding upgrade
    date server
    content-location location
    set-cookie set-cookie2 set-login www-authenticate authentication-info
    accept-ch alt-svc alt-used clear-site-data content-security-policy content-security-policy-report-only critical-ch
    delegate-ch document-policy early-data expect-ct feature-policy integrity-policy nel origin-agent-cluster
    origin-trial permissions-policy refresh referrer-policy report-to reporting-endpoints service-worker-allowed
    sourcemap speculation-rules strict-transport-security supports-loading-mode use-as-dictionary
    x-content-security-policy x-content-type-options x-dns-prefetch-control x-download-options x-frame-options
    x-permitted-cross-domain-policies x-sourcemap x-ua-compatible x-webkit-csp x-xss-protection
    cdn-cache-control cloudflare-cdn-cache-control edge-control
    x-cascade x-litespeed-location x-reproxy-url x-send-file x-sendfile x-sendfile-type x-sendfile2""".split()
)
_STAYS_BEGINS = (
    b"access-control-",
    b"cross-origin-",
    b"public-key-pins",
    b"surrogate-",
    b"timing-allow-",
    b"x-accel-",
    b"x-aibridge-",
    b"x-lighttpd-",
    b"x-litespeed-",
    b"x-reproxy-",
)
"""Names, and prefixes of names, that are not relayed: hop-by-hop headers; headers that the server in front of the
gateway writes itself; headers by which the provider would speak for the gateway's host (cookies, logins, policies of
browsers); orders to the proxy or cache in front, which would fetch a local file, or keep one caller's response for
others; and places at the provider, to which a client would send the gateway's token.
"""

_API_TYPES = {b"application/json", b"application/jsonl", b"application/x-ndjson", b"text/event-stream"}
_NO_SNIFFING = (b"x-content-type-options", b"nosniff")
_SANDBOX = (b"content-security-policy", b"sandbox")
PROTECTION: tuple[tuple[bytes, bytes], ...] = (_NO_SNIFFING,)
"""Headers added to each response whose content type is that of an API."""
_PAGE_PROTECTION = (_NO_SNIFFING, _SANDBOX)
"""Headers added to any other response, so that a browser runs none of it as a page of the gateway's host."""

_REMEMBERED, _REMEMBERED_LENGTH = 512, 64
"""Names and content types whose verdict is cached, and the bytes of the longest; providers may invent more."""


def client_headers(headers: RawHeaders, *dropped: bytes) -> list[tuple[bytes, bytes]]:
    """Return the upstream's headers that the client gets, names in lower case, and the gateway's own for browsers.

    `dropped` names further headers that the client does not get.
    """
    named: set[bytes] = set(dropped)
    kept = []
    api_types = 0
    other_types = 0
    for name, value in headers:
        down = _remembered_down(name) if len(name) <= _REMEMBERED_LENGTH else _down(name)
        if down:
            kept.append((down, value))
            if down == b"content-type":
                if _is_remembered_type(value) if len(value) <= _REMEMBERED_LENGTH else _is_api_type(value):
                    api_types += 1
                else:
                    other_types += 1
        elif name.lower() == b"connection":
            named.update(token.strip().lower() for token in value.split(b","))
    if named:
        kept = [pair for pair in kept if pair[0] not in named]
    kept += PROTECTION if api_types == 1 and not other_types else _PAGE_PROTECTION
    return kept


def _down(name: bytes) -> bytes:
    """Return the name in lower case; empty for a header that is not relayed."""
    lower = name.lower()
    return b"" if lower in _STAYS or plain_name(lower).startswith(_STAYS_BEGINS) else lower


def _is_api_type(value: bytes) -> bool:
    kind = value.lower().partition(b";")[0].strip()
    known = kind in _API_TYPES or (kind.startswith(b"application/") and kind.endswith(b"+json"))
    # With a comma it is several types, and nobody can tell which one counts.
    return known and b"," not in value


_remembered_down = lru_cache(_REMEMBERED)(_down)
_is_remembered_type = lru_cache(_REMEMBERED)(_is_api_type)
