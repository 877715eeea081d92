"""Which headers cross the gateway, in either direction."""

from __future__ import annotations

from collections.abc import Iterable

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
    b"x-real-ip",
}
"""Credentials of the caller, and what a proxy in front of us said about the caller's network."""

_NEVER_UP_PREFIXES = (b"x-aibridge-", b"x-forwarded-")

_ACCOUNT = {b"openai-organization", b"openai-project"}
"""These choose whose account pays: with our credential that is not the caller's to say."""

_NEVER_DOWN = _HOP_BY_HOP | {
    b"access-control-allow-credentials",
    b"access-control-allow-headers",
    b"access-control-allow-methods",
    b"access-control-allow-origin",
    b"access-control-expose-headers",
    b"access-control-max-age",
    b"alt-svc",
    b"set-cookie",
    b"strict-transport-security",
    b"x-aibridge-interception-id",
}
"""What would speak for our host although the upstream said it of its own: cookies, CORS, HTTP/3 and HTTPS policies."""


def upstream_headers(headers: RawHeaders, private: frozenset[bytes], *, own_account: bool) -> list[tuple[str, str]]:
    """The caller's headers that may go upstream, credentials of the provider not yet among them.

    `private` names more that may not, in lower case; `own_account` says that the caller pays with their own key.
    """
    named: set[bytes] = set()
    kept: list[tuple[str, str]] = []
    for name, value in headers:
        if name in _NEVER_UP or name in private or name.startswith(_NEVER_UP_PREFIXES):
            if name == b"connection":
                named.update(token.strip().lower() for token in value.split(b","))
        elif own_account or name not in _ACCOUNT:
            kept.append((name.decode("latin-1"), value.decode("latin-1")))
    if named - {b"keep-alive", b"close"}:
        kept = [pair for pair in kept if pair[0].encode("latin-1") not in named]
    return kept


def client_headers(headers: RawHeaders, *dropped: bytes) -> list[tuple[bytes, bytes]]:
    """The upstream's headers that the client gets, names in lower case; `dropped` names more that it does not."""
    kept = []
    named: set[bytes] = set()
    for name, value in headers:
        lower = name.lower()
        if lower in _NEVER_DOWN:
            if lower == b"connection":
                named.update(token.strip().lower() for token in value.split(b","))
        elif lower not in dropped:
            kept.append((lower, value))
    if named - {b"keep-alive", b"close"}:
        kept = [pair for pair in kept if pair[0] not in named]
    return kept
