"""Response headers: those about the provider's response are relayed, those that act for the gateway's host are not."""

from __future__ import annotations

import pytest

from fastapi_aibridge.providers.response_headers import client_headers

JSON = (b"content-type", b"application/json")
NO_SNIFFING = (b"x-content-type-options", b"nosniff")
SANDBOX = (b"content-security-policy", b"sandbox")


def test_the_upstreams_headers_come_down() -> None:
    """Headers are relayed in order, with names in lower case and unchanged values."""
    headers = [(b"Content-Type", b"text/event-stream"), (b"X-Request-Id", b"r"), (b"x-ratelimit-limit", b"\xff")]
    assert client_headers(headers) == [*((name.lower(), value) for name, value in headers), NO_SNIFFING]


@pytest.mark.parametrize(
    "name",
    """Set-Cookie Set-Cookie2 Access-Control-Allow-Origin Access-Control-Expose-Headers Access-Control-Allow-New
    Strict-Transport-Security Alt-Svc Clear-Site-Data NEL Report-To Reporting-Endpoints Connection Keep-Alive
    Proxy-Authenticate Te Trailer Transfer-Encoding Upgrade Proxy-Connection X-AIBridge-Interception-Id X-AIBridge-Other
    X-Accel-Redirect X-Accel-Buffering X-Accel-Expires X_Accel_Redirect X-Sendfile X-Send-File X-Lighttpd-Send-File
    X-Lighttpd-Send-Tempfile X-Sendfile2 Surrogate-Control Surrogate-Key Edge-Control CDN-Cache-Control
    Location Content-Location
    X-LiteSpeed-Location X-LiteSpeed-Cache-Control X-Reproxy-URL Refresh Service-Worker-Allowed WWW-Authenticate
    Authentication-Info Content-Security-Policy Content-Security-Policy-Report-Only X-Frame-Options
    Cross-Origin-Opener-Policy Cross-Origin-Resource-Policy Permissions-Policy Origin-Trial Origin-Agent-Cluster
    Public-Key-Pins SourceMap Timing-Allow-Origin X-Content-Type-Options Accept-CH Speculation-Rules Set-Login
    X-UA-Compatible X-Permitted-Cross-Domain-Policies Date Server""".split(),  # noqa: SIM905
)
def test_what_would_speak_for_our_host_does_not_come_down(name: str) -> None:
    """Cookies, logins, browser policies and orders to proxies or caches are dropped: the host sets its own."""
    for written in (name, name.lower(), name.upper()):
        headers = client_headers([(written.encode(), b"x"), JSON, (b"x-a", b"1")])
        assert headers == [JSON, (b"x-a", b"1"), NO_SNIFFING]


def test_headers_that_the_upstreams_connection_names_do_not_come_down() -> None:
    """Headers that the upstream's `Connection` header names are hop-by-hop and dropped."""
    headers = [(b"Connection", b"X-A, close"), (b"X-A", b"1"), (b"X-B", b"2"), JSON]
    assert client_headers(headers) == [(b"x-b", b"2"), JSON, NO_SNIFFING]


def test_headers_that_the_body_no_longer_fits_are_dropped() -> None:
    """Headers that no longer fit a changed body are dropped by name."""
    headers = [(b"Content-Length", b"5"), (b"Content-Encoding", b"gzip"), (b"ETag", b"e"), JSON]
    assert client_headers(headers, b"content-length", b"content-encoding") == [(b"etag", b"e"), JSON, NO_SNIFFING]


@pytest.mark.parametrize(
    "value",
    [
        b"application/json",
        b"application/json; charset=utf-8",
        b"Application/JSON",
        b"application/problem+json",
        b"application/x-ndjson",
        b"application/jsonl",
        b"text/event-stream",
        b"text/event-stream;charset=utf-8",
    ],
)
def test_an_apis_answer_is_not_sniffed(value: bytes) -> None:
    """An API response forbids browsers to guess its type, and needs no other policy."""
    assert client_headers([(b"content-type", value)])[1:] == [NO_SNIFFING]


@pytest.mark.parametrize(
    "values",
    [
        [b"text/html"],
        [b"text/html; x=application/json"],
        [b"image/svg+xml"],
        [b"application/xhtml+xml"],
        [b"application/json, text/html"],
        [b"application/jsonp"],
        [b"text/plain"],
        [b""],
        [],
        [b"application/json", b"text/html"],
        [b"text/html", b"application/json"],
        [b"application/json", b"application/json"],
        [b"text/html;" + b"a" * 100],
    ],
)
def test_any_other_answer_is_put_into_a_sandbox(values: list[bytes]) -> None:
    """Any other response is sandboxed, so that a provider's page runs no script on the gateway's host."""
    assert client_headers([(b"content-type", value) for value in values])[len(values) :] == [NO_SNIFFING, SANDBOX]
