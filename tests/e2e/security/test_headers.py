"""Headers tell providers nothing of the caller's identity, and browsers nothing that a provider made up."""

from __future__ import annotations

import pytest

from tests.e2e.gateway.bodies import CHAT, MESSAGES
from tests.e2e.gateway.client import KEY
from tests.e2e.gateway.gateway import ANTHROPIC_KEY

from .raw import GatewayHarness, harness, statuses

pytestmark = pytest.mark.anyio

IDENTITY = {
    b"X-Goog-IAP-JWT-Assertion": b"who-1",
    b"X-Goog-Authenticated-User-Email": b"who-2",
    b"X-Amzn-Oidc-Data": b"who-3",
    b"Cf-Access-Jwt-Assertion": b"who-4",
    b"Cf-Access-Authenticated-User-Email": b"who-5",
    b"X-Auth-Request-Email": b"who-6",
    b"X-MS-TOKEN-AAD-ID-TOKEN": b"who-7",
    b"True-Client-IP": b"who-8",
    b"CF-Connecting-IP": b"who-9",
    b"Referer": b"https://who-10",
    b"Origin": b"https://who-11",
    b"Sec-Fetch-Site": b"who-12",
    b"baggage": b"user=who-13",
    b"x_aibridge_token": b"who-14",
    b"X_Forwarded_For": b"who-15",
    b"X-Forwarded-User": b"who-16",
}


def asking(method: bytes, target: bytes, *headers: bytes, body: bytes = b"") -> bytes:
    lines = [
        method + b" " + target + b" HTTP/1.1",
        b"Host: gateway",
        b"Authorization: Bearer " + KEY.encode(),
        b"Connection: close",
        *headers,
    ]
    if body:
        lines += [b"Content-Type: application/json", b"Content-Length: %d" % len(body)]
    return b"\r\n".join([*lines, b"", b""]) + body


def intercepted(*headers: bytes) -> bytes:
    return asking(b"POST", CHAT.target.encode(), *headers, body=CHAT.ask())


def relayed(*headers: bytes) -> bytes:
    return asking(b"GET", b"/ai/openai/v1/models", *headers)


def heads(home: GatewayHarness) -> bytes:
    return b"".join(head for head, _ in home.sent)


@pytest.mark.parametrize("forward", [[], ["*"], ["x-goog-iap-jwt-assertion", "baggage", "referer", "cf-*"]])
async def test_no_provider_learns_who_calls(forward: list[str]) -> None:
    """Headers with a user's identity from a proxy or browser do not go upstream, whatever the settings forward."""
    lines = [name + b": " + value for name, value in IDENTITY.items()]
    async with harness(forward_headers=forward) as home:
        for data in (intercepted(*lines), relayed(*lines)):
            assert statuses(await home.say(data)) == [200]
        assert len(home.sent) == 2
        assert b"who-" not in heads(home)


async def test_headers_that_the_settings_name_go_up() -> None:
    """Headers that the settings name go upstream, and unknown ones do not."""
    lines = (b"X-Team: red", b"X-Other: no", b"Anthropic-New: yes")
    async with harness(forward_headers=["x-team"]) as home:
        for data in (intercepted(*lines), relayed(*lines)):
            assert statuses(await home.say(data)) == [200]
        assert len(home.sent) == 2
        for head, _ in home.sent:
            assert b"x-team: red" in head.lower()
            assert b"anthropic-new: yes" in head.lower()
            assert b"x-other" not in head.lower()


@pytest.mark.parametrize("byte", [b"\x01", b"\x08", b"\x1f", b"\x7f", b"\x0b", b"\x00"])
async def test_control_characters(byte: bytes) -> None:
    """A control character in a header gets 400, and nothing goes upstream."""
    async with harness() as home:
        for data in (intercepted(b"X-App: a" + byte + b"b"), relayed(b"X-App: a" + byte + b"b")):
            said = await home.say(data)
            assert statuses(said) == [400]
        assert home.sent == []
        assert statuses(await home.say(relayed())) == [200]


ORDERS = b"".join(
    line + b"\r\n"
    for line in (
        b"X-Accel-Redirect: /internal/secret",
        b"X-Sendfile: /etc/passwd",
        b"Refresh: 0; url=https://example.com",
        b"Service-Worker-Allowed: /",
        b"WWW-Authenticate: Basic realm=x",
        b'Clear-Site-Data: "*"',
        b"Content-Security-Policy: script-src *",
        b"X-Content-Type-Options: whatever",
        b"Set-Cookie: a=b",
        b"Access-Control-Allow-Origin: *",
        b"Date: Thu, 01 Jan 1970 00:00:00 GMT",
        b"Server: upstream",
    )
)


def answer(content_type: bytes, body: bytes = b"{}", status: bytes = b"200 OK") -> bytes:
    length = b"Content-Length: %d\r\n\r\n" % len(body)
    return b"HTTP/1.1 " + status + b"\r\nContent-Type: " + content_type + b"\r\n" + ORDERS + length + body


def fields(said: bytes) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for line in said.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        found.setdefault(name.lower(), []).append(value.strip())
    return found


@pytest.mark.parametrize("status", [b"200 OK", b"401 No", b"500 Oh"])
async def test_no_provider_speaks_for_the_host(status: bytes) -> None:
    """A provider's headers cannot instruct a proxy or a browser, nor replace the server's own `Date` and `Server`."""
    async with harness() as home:
        home.upstream.answer = answer(b"application/json", status=status)
        for data in (intercepted(), relayed()):
            found = fields(await home.say(data))
            assert not found.keys() & {
                b"x-accel-redirect",
                b"x-sendfile",
                b"refresh",
                b"service-worker-allowed",
                b"www-authenticate",
                b"clear-site-data",
                b"content-security-policy",
                b"set-cookie",
                b"access-control-allow-origin",
            }
            assert found[b"x-content-type-options"] == [b"nosniff"]
            assert b"upstream" not in found.get(b"server", [])
            assert not any(b"1970" in value for value in found.get(b"date", []))


async def test_pages_of_a_provider_run_nothing() -> None:
    """A response that is not an API's is put into a sandbox, so that it cannot act for the gateway's host."""
    async with harness() as home:
        home.upstream.answer = answer(b"text/html", b"<script>alert(1)</script>")
        found = fields(await home.say(relayed()))
        assert found[b"content-security-policy"] == [b"sandbox"]
        assert found[b"x-content-type-options"] == [b"nosniff"]


async def test_errors_of_the_gateway_are_not_sniffed() -> None:
    """Errors, which repeat the caller's text, are not sniffed; an error that no retry changes says so."""
    async with harness() as home:
        for target, key, status in (
            (b"/ai/openai/v1/models", b"wrong", 401),
            (b"/ai/openai/v1/<script>", KEY.encode(), 404),
            (b"/ai/nobody/v1/models", KEY.encode(), 404),
        ):
            said = await home.say(asking(b"GET", target).replace(KEY.encode(), key))
            assert statuses(said) == [status]
            assert fields(said)[b"x-content-type-options"] == [b"nosniff"]
            assert fields(said).get(b"x-should-retry") == ([b"false"] if status == 401 else None)


async def test_a_browsers_page_does_not_put_the_keys_to_rest() -> None:
    """A browser's headers do not go upstream: Anthropic's 401 for an `Origin` would suspend the shared keys."""
    async with harness() as home:
        lines = (b"Origin: https://app.example", b"Referer: https://app.example/chat", b"Sec-Fetch-Mode: cors")
        await home.say(asking(b"POST", MESSAGES.target.encode(), *lines, body=MESSAGES.ask()))
        [(head, _)] = home.sent
        assert ANTHROPIC_KEY.encode() in head
        assert b"app.example" not in head
        assert b"sec-fetch" not in head.lower()
