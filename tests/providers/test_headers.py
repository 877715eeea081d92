"""Which headers cross the gateway: what the caller told the vendor, and not what it told us or a proxy."""

from __future__ import annotations

import pytest

from fastapi_aibridge.providers.headers import client_headers, upstream_headers

PLAIN = [
    (b"content-type", b"application/json"),
    (b"user-agent", b"codex_cli_rs/0.1"),
    (b"anthropic-version", b"2023-06-01"),
    (b"anthropic-beta", b"a"),
    (b"anthropic-beta", b"b"),
    (b"x-stainless-retry-count", b"0"),
    (b"idempotency-key", b"k"),
    (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
]


def up(*headers: tuple[bytes, bytes], own_account: bool = False, private: frozenset[bytes] = frozenset()) -> list[str]:
    return [name for name, _ in upstream_headers(headers, private, own_account=own_account)]


def test_the_callers_headers_go_up() -> None:
    """In order, repeated ones as often as they came."""
    expected = [(name.decode(), value.decode()) for name, value in PLAIN]
    assert upstream_headers(PLAIN, frozenset(), own_account=False) == expected


@pytest.mark.parametrize(
    "name",
    """authorization x-api-key api-key x-goog-api-key cookie proxy-authorization x-aibridge-token x-aibridge-actor-id
    x-aibridge-anything host content-length accept-encoding connection keep-alive proxy-connection te trailer
    transfer-encoding upgrade expect via forwarded x-forwarded-for x-forwarded-host x-forwarded-proto x-real-ip
    x-http-method-override x-http-method x-method-override x-original-url x-rewrite-url""".split(),  # noqa: SIM905
)
def test_what_is_meant_for_us_stays(name: str) -> None:
    """Credentials, cookies, hop-by-hop headers, the caller's network, and what would make it another request."""
    assert up((name.encode(), b"x"), own_account=True) == []


def test_headers_that_a_connection_names_stay() -> None:
    """They are hop-by-hop by the caller's own word (RFC 9110, section 7.6.1)."""
    headers = [(b"x-a", b"1"), (b"connection", b"close, X-A"), (b"x-b", b"2"), (b"connection", b"x-c"), (b"x-c", b"3")]
    assert up(*headers) == ["x-b"]
    assert up((b"connection", b"keep-alive"), (b"x-a", b"1")) == ["x-a"]


def test_private_headers_stay() -> None:
    """Those that the app's own authentication reads, and those that the settings name."""
    assert up((b"x-session", b"s"), (b"x-a", b"1"), private=frozenset({b"x-session"})) == ["x-a"]


def test_whose_account_pays_is_the_payers_choice() -> None:
    """Organization and project choose an account: with our credential they stay."""
    headers = [(b"openai-organization", b"org"), (b"openai-project", b"proj"), (b"openai-beta", b"b")]
    assert up(*headers) == ["openai-beta"]
    assert up(*headers, own_account=True) == ["openai-organization", "openai-project", "openai-beta"]


@pytest.mark.parametrize(
    ("value", "text"), [(b"na\xc3\xafve", "naïve"), (b"na\xefve", "naïve"), (b"", ""), (b"\xe2\x82\xac", "€")]
)
def test_values_beyond_ascii_are_the_same_bytes_upstream(value: bytes, text: str) -> None:
    """The upstream client writes UTF-8: so what came as UTF-8 leaves as the bytes that came."""
    assert upstream_headers([(b"x-a", value)], frozenset(), own_account=False) == [("x-a", text)]


def test_the_upstreams_headers_come_down() -> None:
    """In order, names in lower case, values untouched."""
    headers = [(b"Content-Type", b"text/event-stream"), (b"X-Request-Id", b"r"), (b"x-ratelimit-limit", b"\xff")]
    assert client_headers(headers) == [(name.lower(), value) for name, value in headers]


@pytest.mark.parametrize(
    "name",
    """Set-Cookie Set-Cookie2 Access-Control-Allow-Origin Access-Control-Expose-Headers Access-Control-Allow-New
    Strict-Transport-Security Alt-Svc Clear-Site-Data NEL Report-To Connection Keep-Alive Proxy-Authenticate Te Trailer
    Transfer-Encoding Upgrade Proxy-Connection X-AIBridge-Interception-Id X-AIBridge-Other""".split(),  # noqa: SIM905
)
def test_what_would_speak_for_our_host_does_not_come_down(name: str) -> None:
    """Cookies, CORS and HTTPS policies are the gateway's own to set, and so are its own headers."""
    assert client_headers([(name.encode(), b"x"), (b"x-a", b"1")]) == [(b"x-a", b"1")]


def test_headers_that_the_upstreams_connection_names_do_not_come_down() -> None:
    """Hop-by-hop is hop-by-hop in both directions."""
    headers = [(b"Connection", b"X-A, close"), (b"X-A", b"1"), (b"X-B", b"2")]
    assert client_headers(headers) == [(b"x-b", b"2")]


def test_headers_that_the_body_no_longer_fits_are_dropped() -> None:
    """Who changes a body names the headers that spoke of the old one."""
    headers = [(b"Content-Length", b"5"), (b"Content-Encoding", b"gzip"), (b"ETag", b"e")]
    assert client_headers(headers, b"content-length", b"content-encoding") == [(b"etag", b"e")]
