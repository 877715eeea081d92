"""Which headers cross the gateway, in either direction."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

RawHeaders = Iterable[tuple[bytes, bytes]]

_HOP_BY_HOP = {
    b"connection",
    b"keep-alive",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
}
"""RFC 9110, section 7.6.1, and what older proxies send."""

_NEVER_UP = _HOP_BY_HOP | {
    b"accept-encoding",  # set anew: the gateway has to read the answer too
    b"api-key",
    b"authorization",
    b"content-length",
    b"cookie",
    b"expect",
    b"forwarded",
    b"host",
    b"via",
    b"x-api-key",
    b"x-goog-api-key",
    b"x-http-method",
    b"x-http-method-override",
    b"x-method-override",
    b"x-original-url",
    b"x-real-ip",
    b"x-rewrite-url",
}
"""Credentials of the caller, what a proxy in front of us said about the caller's network, and what would have some
upstream take the request for another than the one that was judged here."""

_NEVER_UP_PREFIXES = (b"x-aibridge-", b"x-forwarded-")

_ACCOUNT = {b"openai-organization", b"openai-project"}
"""These choose whose account pays: with our credential that is not the caller's to say."""

_NEVER_DOWN = _HOP_BY_HOP | {
    b"alt-svc",
    b"clear-site-data",
    b"nel",
    b"report-to",
    b"set-cookie",
    b"set-cookie2",
    b"strict-transport-security",
}
_NEVER_DOWN_PREFIXES = (b"access-control-", b"x-aibridge-")
"""What would speak for our host although the upstream said it of its own: cookies, CORS, HTTP/3 and HTTPS policies,
and headers of ours."""


def upstream_headers(headers: RawHeaders, private: frozenset[bytes], *, own_account: bool) -> list[tuple[str, str]]:
    """The caller's headers that may go upstream, credentials of the provider not yet among them.

    `private` names more that may not, in lower case; `own_account` says that the caller pays with their own key.
    """
    named = b""
    kept: list[tuple[str, str]] = []
    for name, value in headers:
        up = _goes_up(name)
        if up is None:
            if name == b"connection":
                named += b"," + value.lower()
        elif name not in private and (own_account or name not in _ACCOUNT):
            kept.append((up, value.decode("ascii") if value.isascii() else _text(value)))
    return _without(kept, named.decode("latin-1")) if named else kept


def _text(value: bytes) -> str:
    """The value, which the upstream client writes in UTF-8 again. What is not UTF-8 is taken for Latin-1."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


@lru_cache(maxsize=1024)
def _goes_up(name: bytes) -> str | None:
    """The name as text, or None for a header that stays here. Few names are ever seen: asked once for each."""
    return None if name in _NEVER_UP or name.startswith(_NEVER_UP_PREFIXES) else name.decode("latin-1")


def _without(kept: list[tuple[str, str]], named: str) -> list[tuple[str, str]]:
    """What is left without the headers that a `Connection` header named (RFC 9110, section 7.6.1)."""
    names = {name.strip() for name in named.split(",")}
    return [pair for pair in kept if pair[0] not in names]


def client_headers(headers: RawHeaders, *dropped: bytes) -> list[tuple[bytes, bytes]]:
    """The upstream's headers that the client gets, names in lower case; `dropped` names more that it does not."""
    named: set[bytes] = set(dropped)
    kept = []
    for name, value in headers:
        down = _goes_down(name)
        if down is not None:
            kept.append((down, value))
        elif name.lower() == b"connection":
            named.update(token.strip().lower() for token in value.split(b","))
    return [pair for pair in kept if pair[0] not in named] if named else kept


@lru_cache(maxsize=1024)
def _goes_down(name: bytes) -> bytes | None:
    """The name in lower case, or None for a header that is not relayed."""
    lower = name.lower()
    return None if lower in _NEVER_DOWN or lower.startswith(_NEVER_DOWN_PREFIXES) else lower
