"""Paths, hosts and methods that try to make the upstream see another request than the one that was checked."""

from __future__ import annotations

import pytest

from fastapi_aibridge import Principal
from tests.e2e.gateway.bodies import CHAT
from tests.e2e.gateway.client import KEY
from tests.e2e.gateway.gateway import ADMIN, OPENAI_KEY

from .raw import harness, statuses

pytestmark = pytest.mark.anyio

AUTH = b"Authorization: Bearer " + KEY.encode() + b"\r\n"
CLOSE = b"Connection: close\r\n"
ASK = CHAT.ask()


def get(target: bytes, headers: bytes = b"", method: bytes = b"GET", host: bytes = b"gateway") -> bytes:
    return method + b" " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\n" + AUTH + CLOSE + headers + b"\r\n"


def post(target: bytes, headers: bytes = b"") -> bytes:
    return get(target, b"Content-Length: %d\r\n" % len(ASK) + headers, b"POST") + ASK


HOSTILE = [
    b"/ai/openai/v1/files",
    b"/ai/openai/v1/chat/completions/",
    b"/ai/openai/v1/chat/completions/x",
    b"/ai/openai//v1/models",
    b"//ai/openai/v1/models",
    b"/ai//openai/v1/models",
    b"/ai/openai/v1//models",
    b"/ai/openai/v1/models//x",
    b"/ai/openai/v1/models/",
    b"/ai/openai/./v1/models",
    b"/ai/openai/v1/models/.",
    b"/ai/openai/v1/models/..",
    b"/ai/openai/v1/models/../files",
    b"/ai/openai/v1/models/../../v1/files",
    b"/ai/openai/v1/models/%2e%2e/files",
    b"/ai/openai/v1/models/%2E%2E%2Ffiles",
    b"/ai/openai/v1/models/..%2ffiles",
    b"/ai/openai/v1/models%2f..%2ffiles",
    b"/ai/openai/v1/models/..%5cfiles",
    b"/ai/openai/v1/models/..\\files",
    b"/ai/openai/v1/models/%252e%252e/files",
    b"/ai/openai/v1/models/%252fx",
    b"/ai/openai/v1/models/..;/files",
    b"/ai/openai/v1/models/;/x",
    b"/ai/openai/v1/models/%00",
    b"/ai/openai/v1/models/x%0d%0aX-Injected:%201",
    b"/ai/openai/v1/models/%c0%ae%c0%ae/files",
    b"/ai/openai/v1/models/%ff",
    b"/ai/openai/v1/models/\xc0\xae\xc0\xae/files",
    b"/ai/openai/v1%2fmodels",
    b"/ai/openai%2fv1/models",
    b"/ai%2fopenai/v1/models",
    b"/ai/openai/V1/models",
    b"/ai/OPENAI/v1/models",
    b"/ai/openai/v1/models%20",
    b"/ai/openai/v1/modelsx",
    b"/ai/anthropic/v1/conversations",
    b"/ai/../ai/openai/v1/models",
    b"/ai/unknown/../openai/v1/models",
    b"/ai/openai/@example.com/v1/models",
    b"/ai/openai/https://example.com/v1/models",
    b"*",
    b"openai/v1/models",
    b"@example.com/ai/openai/v1/models",
]


@pytest.mark.parametrize("target", HOSTILE, ids=repr)
async def test_hostile_paths(target: bytes) -> None:
    """A path that is not listed, or that can be read in another way, does not go upstream with any method."""
    async with harness() as home:
        for data in (get(target), post(target), get(target, method=b"OPTIONS"), get(target, method=b"DELETE")):
            assert statuses(await home.say(data)) in ([400], [404])
        assert home.sent == []


@pytest.mark.parametrize(
    "target",
    [
        b"http://gateway/ai/openai/v1/models",
        b"http://example.com/ai/openai/v1/models",
        b"https://user:pass@example.com:99/ai/openai/v1/models",
        b"http://169.254.169.254/ai/openai/v1/models",
    ],
)
async def test_absolute_targets(target: bytes) -> None:
    """A host in the request target is never called: the gateway is no open proxy."""
    async with harness() as home:
        assert statuses(await home.say(get(target))) == [200]
        [(head, _)] = home.sent
        assert head.startswith(b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1:")


@pytest.mark.parametrize("target", [b"example.com:443", b"/ai/openai/v1/models", b"127.0.0.1:22", b"gateway"])
async def test_connect(target: bytes) -> None:
    """CONNECT opens no tunnel."""
    async with harness() as home:
        said = await home.say(get(target, method=b"CONNECT") + b"GET / HTTP/1.1\r\n\r\n")
        assert statuses(said) in ([400], [405])
        assert home.sent == []


@pytest.mark.parametrize("method", [b"TRACE", b"PROPFIND", b"QUERY", b"get", b"PURGE", b"LINK"])
async def test_odd_methods(method: bytes) -> None:
    """Unusual methods are not relayed, so that nothing is traced or purged."""
    async with harness() as home:
        said = await home.say(get(b"/ai/openai/v1/models", method=method))
        assert statuses(said) in ([400], [405])
        assert home.sent == []


@pytest.mark.parametrize(
    "host",
    [
        b"example.com",
        b"example.com:80@gateway",
        b"gateway/../../admin",
        b"gateway#",
        b"169.254.169.254",
        b"",
        b"a" * 5000,
        b"127.0.0.1:1\r\nHost: example.com",
        b"gateway\r\nX-Forwarded-Host: example.com\r\nForwarded: host=example.com",
    ],
)
async def test_host_tricks(host: bytes) -> None:
    """The settings decide where a request goes, whatever its `Host` is."""
    async with harness() as home:
        assert statuses(await home.say(get(b"/ai/openai/v1/models", host=host))) == [200]
        assert statuses(await home.say(get(b"/ai/openai/v1/models/../files", host=host))) == [404]
        [(head, _)] = home.sent
        assert head.startswith(b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1:")
        assert b"example.com" not in head


@pytest.mark.parametrize(
    "header",
    [
        b"X-HTTP-Method-Override: DELETE\r\n",
        b"X-HTTP-Method: DELETE\r\n",
        b"X-Method-Override: DELETE\r\n",
        b"X-Original-URL: /v1/files\r\n",
        b"X-Rewrite-URL: /v1/files\r\n",
        b"X-Forwarded-Prefix: /v1/files\r\n",
        b"X-Forwarded-For: 127.0.0.1\r\n",
        b"Forwarded: for=127.0.0.1\r\n",
    ],
)
async def test_overrides(header: bytes) -> None:
    """Headers that override path, method or origin do not go upstream, and have no effect here."""
    async with harness() as home:
        assert statuses(await home.say(get(b"/ai/openai/v1/models", header))) == [200]
        [(head, _)] = home.sent
        assert head.startswith(b"GET /v1/models HTTP/1.1\r\n")
        assert header.partition(b":")[0].lower() not in head.lower()


async def test_query_overrides() -> None:
    """A method in the query has no effect, and stays in the query."""
    async with harness() as home:
        await home.say(get(b"/ai/openai/v1/models?_method=DELETE&x=%0d%0aX-Injected:%201&y=/../.."))
        [(head, _)] = home.sent
        assert head.startswith(b"GET /v1/models?_method=DELETE&x=%0d%0aX-Injected:%201&y=/../.. HTTP/1.1\r\n")
        assert b"\nX-Injected" not in head


@pytest.mark.parametrize("path", ["pool", "metrics", "providers", "interceptions", "usage", "reload"])
async def test_admin_routes_are_closed(path: str) -> None:
    """No admin route answers without the token, with a client's key, or with a token that is only similar."""
    target = f"/ai/admin/{path}".encode()
    keys = (
        b"",
        b"Bearer",
        b"Bearer ",
        KEY.encode(),
        ADMIN.encode(),
        b"Basic " + ADMIN.encode(),
        b"Bearer " + KEY.encode(),
    )
    async with harness() as home:
        for key in (*keys, b"Bearer " + ADMIN.encode()[:-1], b"Bearer " + ADMIN.encode() + b"x", b"Bearer \xff"):
            for method in (b"GET", b"POST", b"HEAD"):
                said = await home.say(
                    method
                    + b" "
                    + target
                    + b" HTTP/1.1\r\nHost: x\r\n"
                    + CLOSE
                    + b"Authorization: "
                    + key
                    + b"\r\n\r\n"
                )
                assert statuses(said)[0] in (401, 405), (key, method)
        for trick in (
            b"//ai/admin/pool",
            b"/ai/admin/pool/",
            b"/ai/%61dmin/pool",
            b"/ai/openai/../admin/pool",
            b"/ai/admin%2fpool",
        ):
            assert statuses(await home.say(get(trick)))[0] in (307, 401, 404)
        assert home.sent == []


async def test_admin_routes_without_a_token_of_their_own() -> None:
    """Without an admin token in the settings the admin routes refuse everybody."""
    async with harness(admin_token=None) as home:
        for key in (b"", b"None", ADMIN.encode(), KEY.encode()):
            said = await home.say(
                b"GET /ai/admin/pool HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + key + b"\r\n\r\n"
            )
            assert statuses(said) == [403]


@pytest.mark.parametrize(
    ("framing", "rest"),
    [
        (b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", b"0\r\n\r\n"),
        (b"Content-Length: 0\r\nContent-Length: 60\r\n", b""),
        (b"Content-Length: 0, 60\r\n", b""),
        (b"Transfer-Encoding: xchunked\r\nContent-Length: 0\r\n", b""),
        (b"Transfer-Encoding : chunked\r\nContent-Length: 0\r\n", b"0\r\n\r\n"),
        (b"Transfer-Encoding:\x0bchunked\r\nContent-Length: 0\r\n", b"0\r\n\r\n"),
        (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", b"0\r\n\r\n"),
        (b"Transfer-Encoding: identity, chunked\r\n", b"0\r\n\r\n"),
        (b"Transfer-Encoding: chunked\r\n", b"0;\r\n\r\n"),
        (b"Transfer-Encoding: chunked\r\n", b"00\r\nX: y\r\n\r\n"),
        (b"Transfer-Encoding: chunked\r\n", b"0\n\n"),
        (b"X: y\nContent-Length: 60\r\n", b""),
        (b"X: y\rContent-Length: 60\r\n", b""),
        (b"Content-Length: +0\r\n", b""),
        (b" Content-Length: 60\r\n", b""),
    ],
    ids=repr,
)
async def test_smuggling(framing: bytes, rest: bytes) -> None:
    """Requests are framed anew, so that none becomes two upstream or carries another's bytes."""
    hidden = b"DELETE /v1/models/hidden HTTP/1.1\r\nHost: x\r\n\r\n"
    async with harness() as home:
        request = get(b"/ai/openai/v1/models", framing, b"POST").replace(CLOSE, b"")
        await home.say(request + rest + hidden)
        for head, body in home.sent:
            assert head.startswith(b"POST /v1/models HTTP/1.1\r\n")
            assert b"hidden" not in body or b"Content-Length: 60" in framing or b"0, 60" in framing
            assert b"transfer-encoding" not in head.lower()
            assert head.lower().count(b"content-length") <= 1
        assert len(home.sent) <= 1


async def test_cookies() -> None:
    """Neither side's cookies reach the other, in this request or the next on the same connections."""
    cookie = b"Cookie: session=app-secret; x=1\r\nCookie2: $Version=1\r\n"
    async with harness() as home:
        for data in (get(b"/ai/openai/v1/models", cookie), post(CHAT.target.encode(), cookie)) * 2:
            said = await home.say(data)
            assert statuses(said) == [200]
            assert b"cookie" not in said.lower()
        assert len(home.sent) == 4
        for head, _ in home.sent:
            assert b"session=" not in head
            assert b"\r\ncookie:" not in head.lower()
            assert b"upstream=1" not in head


async def test_credentials_stay() -> None:
    """The caller's token does not go upstream, wherever it was put, and the provider's key never reaches the caller."""
    forms = (AUTH, b"X-Api-Key: " + KEY.encode() + b"\r\n", b"X-AIBridge-Token: " + KEY.encode() + b"\r\n")
    async with harness() as home:
        for form in forms:
            said = await home.say(
                b"GET /ai/openai/v1/models HTTP/1.1\r\nHost: x\r\n" + form + b"Proxy-Authorization: Basic eDp5\r\n\r\n"
            )
            assert statuses(said) == [200]
            assert OPENAI_KEY.encode() not in said
        assert len(home.sent) == len(forms)
        for head, _ in home.sent:
            assert KEY.encode() not in head
            assert b"eDp5" not in head
            assert head.count(OPENAI_KEY.encode()) == 1


async def test_redirects_are_not_followed() -> None:
    """A provider's redirect is not followed, and the caller does not learn its target."""
    async with harness() as home:
        home.upstream.answer = (
            b"HTTP/1.1 307 Go\r\nLocation: http://127.0.0.1:%d/stolen\r\nContent-Length: 0\r\n\r\n" % home.port
        )
        for data in (get(b"/ai/openai/v1/models"), post(CHAT.target.encode())):
            answer = await home.say(data)
            assert statuses(answer) == [502]
            assert b"stolen" not in answer
        assert len(home.sent) == 2


@pytest.mark.parametrize("value", ["a\r\nX-Injected: 1", "a\nb", "ä", "\x7f", "x" * 200, "a\u2028b"])
async def test_headers_of_principals(value: str) -> None:
    """A principal's id goes upstream as the value of one header, whatever it contains."""

    async def principal() -> Principal:
        return Principal(initiator_id=value, metadata={value: value, "plain": value})

    async with harness(principal, providers={"send_actor_headers": True}) as home:
        assert statuses(await home.say(get(b"/ai/openai/v1/models"))) == [200]
        [(head, _)] = home.sent
        names = [line.partition(b":")[0].lower() for line in head.split(b"\r\n")[1:] if line]
        assert b"x-injected" not in names
        assert names.count(b"x-aibridge-actor-id") == 1
        assert head.isascii()
        assert b"\x00" not in head
        assert b"\n" not in head.replace(b"\r\n", b"")
