"""Relaying: the same bytes in both directions, whatever their framing."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib

import pytest
import zstandard

from fastapi_aibridge import Status
from fastapi_aibridge.exchange import relay

from .bodies import CHAT, MESSAGES, RESPONSES, WIRES, Wire
from .gateway import ANTHROPIC_KEY, OPENAI_KEY, gateway

pytestmark = pytest.mark.anyio
each = pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)

JSON = ("Content-Type", "application/json")


@each
async def test_a_blocking_answer_is_relayed_byte_for_byte(wire: Wire) -> None:
    """Body, status and headers of a blocking response are the upstream's own, white space included."""
    async with gateway() as gate:
        asked = asyncio.create_task(gate.request("POST", wire.target, wire.ask()))
        call = await gate.upstream.call()
        assert call.path == wire.path
        assert call.body == wire.ask()
        await call.answer(wire.blocking, headers=[("Content-Type", "application/json; charset=utf-8"), ("X-Up", "1")])
        answer = await asked
        assert (answer.status, answer.body) == (200, wire.blocking)
        assert answer.header("content-type") == "application/json; charset=utf-8"
        assert answer.header("x-up") == "1"
        record = await gate.record()
        assert answer.header("x-aibridge-interception-id") == record.interception.id
        assert record.ending is not None
        assert record.ending.status is Status.COMPLETED
        assert record.facts.token_usages[0].output_tokens == 2


@each
async def test_each_event_is_relayed_as_it_comes(wire: Wire) -> None:
    """The client receives each event before the upstream sends the next one."""
    async with gateway() as gate, gate.connected() as client:
        await client.send("POST", wire.target, wire.ask(stream=True))
        call = await gate.upstream.call()
        await call.stream()
        for event in wire.events:
            await call.chunk(event)
            if event is wire.events[0]:
                status, headers = await client.head()
                assert status == 200
                assert dict(headers)["content-type"] == "text/event-stream"
                assert dict(headers)["x-aibridge-interception-id"]
            assert await client.piece() == event
        await call.end()
        assert await client.piece() == b""
        record = await gate.record()
        assert record.ending is not None
        assert record.ending.status is Status.COMPLETED


@each
async def test_a_stream_cut_into_single_bytes_is_relayed_whole(wire: Wire) -> None:
    """Chunks of one byte each, in one TCP segment or in many, come out as the same stream."""
    stream = b"".join(wire.events)
    async with gateway() as gate:
        asked = asyncio.create_task(gate.request("POST", wire.target, wire.ask(stream=True)))
        call = await gate.upstream.call()
        await call.stream()
        for index in range(len(stream)):
            await call.chunk(stream[index : index + 1])
            if index % 100 == 0:
                await asyncio.sleep(0)
        await call.end()
        answer = await asked
        assert (answer.body, answer.whole) == (stream, True)


async def test_chunk_sizes_with_extensions_and_leading_zeros_are_read() -> None:
    """Unusual but lawful chunk framing is read, and does not reach the client."""
    async with gateway() as gate:
        asked = asyncio.create_task(gate.request("POST", CHAT.target, CHAT.ask(stream=True)))
        call = await gate.upstream.call()
        await call.stream()
        for event in CHAT.events:
            await call.write(b"%06X;name=value\r\n%b\r\n" % (len(event), event))
        await call.write(b"0\r\nX-Trailer: 1\r\n\r\n")
        assert (await asked).body == b"".join(CHAT.events)


@each
async def test_carriage_returns_in_the_framing_are_kept(wire: Wire) -> None:
    """A stream whose lines end in CRLF keeps its line endings."""
    stream = b"".join(wire.events).replace(b"\n", b"\r\n")
    async with gateway() as gate:
        asked = asyncio.create_task(gate.request("POST", wire.target, wire.ask(stream=True)))
        call = await gate.upstream.call()
        await call.stream(stream[:50], stream[50:])
        await call.end()
        assert (await asked).body == stream
        record = await gate.record()
        assert record.ending is not None
        assert record.ending.status is Status.COMPLETED


@each
@pytest.mark.parametrize("kind", [None, "Text/Event-Stream; charset=utf-8"])
async def test_a_stream_by_another_name_is_relayed_as_it_comes(wire: Wire, kind: str | None) -> None:
    """Media types are case-insensitive, and a response without one is of the kind that was requested."""
    async with gateway() as gate, gate.connected() as client:
        await client.send("POST", wire.target, wire.ask(stream=True))
        call = await gate.upstream.call()
        await call.head(200, [("Content-Type", kind)] if kind else [], chunked=True)
        await call.chunk(wire.events[0])
        assert (await client.head())[0] == 200
        assert await client.piece() == wire.events[0]
        await call.chunk(b"".join(wire.events[1:]))
        await call.end()
        assert await client.piece() == b"".join(wire.events[1:])
        record = await gate.record()
        assert record.ending is not None
        assert record.ending.status is Status.COMPLETED


@each
async def test_the_upstreams_own_error_passes_unchanged(wire: Wire) -> None:
    """An error of the upstream keeps its body and headers, and the interception has failed."""
    body = b'{"error": {"message":"slow down", "type" : "rate_limit_error","code":null}}'
    async with gateway() as gate:
        asked = asyncio.create_task(gate.request("POST", wire.target, wire.ask(stream=True)))
        await (await gate.upstream.call()).answer(body, status=429, headers=[JSON, ("Retry-After", "7")])
        answer = await asked
        assert (answer.status, answer.body, answer.header("retry-after")) == (429, body, "7")
        record = await gate.record()
        assert record.ending is not None
        assert (record.ending.status, record.ending.upstream_status) == (Status.FAILED, 429)


async def test_an_http_1_0_upstream_is_relayed_until_it_closes() -> None:
    """A response without a length is whole when the upstream closes the connection."""
    async with gateway() as gate:
        asked = asyncio.create_task(gate.request("POST", CHAT.target, CHAT.ask()))
        call = await gate.upstream.call()
        await call.write(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + CHAT.blocking)
        call.close()
        answer = await asked
        assert (answer.status, answer.body, answer.whole) == (200, CHAT.blocking, True)


@each
async def test_a_stream_framed_by_connection_close_is_relayed(wire: Wire) -> None:
    """A stream without a length is whole at the connection's end; `Connection: close` concerns that hop only."""
    async with gateway() as gate, gate.connected() as client:
        await client.send("POST", wire.target, wire.ask(stream=True))
        call = await gate.upstream.call()
        await call.head(200, [("Content-Type", "text/event-stream"), ("Connection", "close")])
        await call.write(b"".join(wire.events))
        call.close()
        answer = await client.answer()
        assert (answer.body, answer.whole) == (b"".join(wire.events), True)
        assert answer.header("connection") is None
        await client.send("GET", "/ai/openai/v1/nothing")
        assert (await client.answer()).status == 404


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
@each
async def test_an_encoded_request_is_understood(wire: Wire, encoding: str) -> None:
    """A gzip or zstd body is decoded for the upstream, which gets plain JSON and no `Content-Encoding`."""
    plain = wire.ask()
    packed = gzip.compress(plain) if encoding == "gzip" else zstandard.ZstdCompressor().compress(plain)
    async with gateway() as gate:
        asked = asyncio.create_task(gate.request("POST", wire.target, packed, {"Content-Encoding": encoding}))
        call = await gate.upstream.call()
        assert call.body == plain
        assert call.header("content-encoding") is None
        await call.answer(wire.blocking)
        assert (await asked).status == 200


@pytest.mark.parametrize(
    ("body", "encoding", "status"),
    [
        (b"not gzip", "gzip", 400),
        (b"not zstd", "zstd", 400),
        (gzip.compress(b"{}", mtime=0)[:-4], "gzip", 400),
        (b"{}", "br", 415),
    ],
    ids=["bad gzip", "bad zstd", "cut gzip", "unknown"],
)
async def test_a_request_that_cannot_be_decoded_is_refused(body: bytes, encoding: str, status: int) -> None:
    """A body that does not match its encoding gets 400, an unknown encoding 415, and nothing goes upstream."""
    async with gateway() as gate:
        answer = await gate.request("POST", CHAT.target, body, {"Content-Encoding": encoding})
        assert answer.status == status
        assert CHAT.is_error(answer.body)
        assert gate.upstream.untouched


async def test_a_bomb_is_refused() -> None:
    """A small body that decodes to more than the limit gets 413."""
    bomb = gzip.compress(b" " * 3_000_000)
    async with gateway(max_body_size=1_000_000) as gate:
        answer = await gate.request("POST", CHAT.target, bomb, {"Content-Encoding": "gzip"})
        assert answer.status == 413
        assert gate.upstream.untouched


@each
async def test_a_gzip_answer_is_relayed_as_it_is_and_observed(wire: Wire) -> None:
    """A client that takes gzip gets the upstream's very bytes, and the usage in them is recorded."""
    packed = gzip.compress(wire.blocking)
    async with gateway() as gate:
        asked = asyncio.create_task(gate.request("POST", wire.target, wire.ask(), {"Accept-Encoding": "br, gzip"}))
        call = await gate.upstream.call()
        assert call.header("accept-encoding") == "gzip"
        await call.answer(packed, headers=[JSON, ("Content-Encoding", "gzip")])
        answer = await asked
        assert (answer.body, answer.header("content-encoding")) == (packed, "gzip")
        assert (await gate.record()).facts.token_usages[0].output_tokens == 2


async def test_a_gzip_answer_that_nobody_asked_for_is_decoded() -> None:
    """A client that takes no gzip gets plain bytes although the upstream compressed them."""
    async with gateway() as gate:
        asked = asyncio.create_task(gate.request("POST", CHAT.target, CHAT.ask()))
        call = await gate.upstream.call()
        assert call.header("accept-encoding") == "identity"
        await call.answer(gzip.compress(CHAT.blocking), headers=[JSON, ("Content-Encoding", "gzip")])
        answer = await asked
        assert (answer.body, answer.header("content-encoding")) == (CHAT.blocking, None)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@each
async def test_a_compressed_stream_is_decoded_event_by_event(wire: Wire, encoding: str) -> None:
    """A stream is requested uncompressed; one that comes compressed all the same is relayed as plain events."""
    packer = zlib.compressobj(wbits=31 if encoding == "gzip" else 15)
    async with gateway() as gate, gate.connected() as client:
        await client.send("POST", wire.target, wire.ask(stream=True), {"Accept-Encoding": "gzip"})
        call = await gate.upstream.call()
        assert call.header("accept-encoding") == "identity"
        await call.stream(headers=[("Content-Encoding", encoding)])
        for event in wire.events:
            await call.chunk(packer.compress(event) + packer.flush(zlib.Z_SYNC_FLUSH))
            if event is wire.events[0]:
                _, headers = await client.head()
                assert "content-encoding" not in dict(headers)
            assert await client.piece() == event
        await call.chunk(packer.flush())
        await call.end()
        assert await client.piece() == b""
        record = await gate.record()
        assert record.ending is not None
        assert record.ending.status is Status.COMPLETED


async def test_an_answer_beyond_the_observed_size_is_relayed_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A very large blocking response is relayed byte for byte in pieces, without being read."""
    monkeypatch.setattr(relay, "OBSERVED_SIZE", 100_000)
    body = b'{"id": "x", "choices": [], "filler": "' + b"0123456789" * 100_000 + b'"}'
    async with gateway() as gate:
        asked = asyncio.create_task(gate.request("POST", CHAT.target, CHAT.ask()))
        await (await gate.upstream.call()).answer(body)
        answer = await asked
        assert answer.body == body
        assert answer.header("content-length") == str(len(body))
        record = await gate.record()
        assert record.ending is not None
        assert record.ending.status is Status.COMPLETED


async def test_a_large_body_goes_up_whole() -> None:
    """A request of some megabytes reaches the upstream unchanged, including unknown members and their order."""
    message = {"role": "user", "content": "x" * 5_000_000}
    body = json.dumps({"zzz": 1e400, "model": "m-1", "messages": [message], "aaa": None}).encode()
    body = body.replace(b"Infinity", b"123456789012345678901234567890")
    async with gateway() as gate:
        asked = asyncio.create_task(gate.request("POST", CHAT.target, body))
        call = await gate.upstream.call()
        assert call.body == body
        await call.answer(CHAT.blocking)
        assert (await asked).status == 200


async def test_bodies_over_the_limit_are_refused() -> None:
    """A body over the limit gets 413 in the provider's shape, whether or not its length is declared."""
    async with gateway(max_body_size=1000) as gate:
        for wire in WIRES:
            answer = await gate.request("POST", wire.target, b"{" + b" " * 1000 + b"}")
            assert answer.status == 413
            assert wire.is_error(answer.body)
        async with gate.connected() as client:
            await client.send("POST", CHAT.target, headers={"Transfer-Encoding": "chunked"})
            for _ in range(3):
                client.writer.write(b"190\r\n" + b" " * 0x190 + b"\r\n")
            answer = await client.answer()
            assert answer.status == 413
        assert gate.upstream.untouched


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "POST", "PUT", "PATCH"])
async def test_listed_routes_pass(method: str) -> None:
    """Method, path as written, query and body reach the upstream, the response is unchanged; changes are recorded."""
    async with gateway(providers={"pass_through": ["/v1/files/*"]}) as gate:
        body = b"not even json" if method in ("POST", "PUT", "PATCH") else b""
        path = "/v1/files/gpt%205;a=b?limit=2&after=%C3%A4"
        asked = asyncio.create_task(gate.request(method, f"/ai/openai{path}", body))
        call = await gate.upstream.call()
        assert (call.method, call.path, call.body) == (method, path, body)
        assert call.header("authorization") == f"Bearer {OPENAI_KEY}"
        if method == "HEAD":
            await call.head(200, [JSON, ("Content-Length", "321"), ("X-Request-Id", "r-1")])
        else:
            await call.answer(b"[1,  2]", status=201, headers=[JSON, ("X-Request-Id", "r-1")])
        answer = await asked
        assert answer.header("x-request-id") == "r-1"
        assert (answer.header("x-aibridge-interception-id") is None) == (method in ("GET", "HEAD"))
        if method == "HEAD":
            assert (answer.status, answer.header("content-length")) == (200, "321")
        else:
            assert (answer.status, answer.body) == (201, b"[1,  2]")


async def test_a_passed_through_stream_flows() -> None:
    """A stored response that is streamed again is relayed event by event."""
    async with gateway() as gate, gate.connected() as client:
        await client.send("GET", "/ai/openai/v1/responses/resp-1?stream=true")
        call = await gate.upstream.call()
        await call.stream()
        for event in RESPONSES.events:
            await call.chunk(event)
            if event is RESPONSES.events[0]:
                await client.head()
            assert await client.piece() == event
        await call.end()
        assert await client.piece() == b""


async def test_an_answer_without_a_body_has_none() -> None:
    """A 204 stays 204, with neither body nor length."""
    async with gateway() as gate:
        asked = asyncio.create_task(gate.request("DELETE", "/ai/openai/v1/responses/resp-1"))
        await (await gate.upstream.call()).head(204)
        answer = await asked
        assert (answer.status, answer.body, answer.header("content-length")) == (204, b"", None)


@pytest.mark.parametrize("path", ["/ai/openai/v1/models", CHAT.target])
async def test_redirects_are_not_followed(path: str) -> None:
    """A redirect is not followed with our credentials, and the client does not learn its target."""
    async with gateway() as gate:
        method, body = ("POST", CHAT.ask()) if path == CHAT.target else ("GET", b"")
        asked = asyncio.create_task(gate.request(method, path, body))
        call = await gate.upstream.call()
        await call.answer(b"", status=307, headers=[("Location", f"{gate.upstream.url}/elsewhere")])
        answer = await asked
        assert (answer.status, answer.header("location")) == (502, None)
        assert b"elsewhere" not in answer.body
        assert gate.upstream.untouched


@pytest.mark.parametrize("intercepted", [True, False])
async def test_headers_that_cross_and_headers_that_do_not(*, intercepted: bool) -> None:
    """Hop-by-hop and unknown headers, cookies and the caller's credentials end here; known headers and our key pass."""
    headers = {
        "Connection": "keep-alive, X-Hop",
        "X-Hop": "1",
        "Keep-Alive": "timeout=5",
        "TE": "trailers",
        "Cookie": "session=secret",
        "X-Api-Key": "k-alice",
        "X-Forwarded-For": "10.0.0.1",
        "X-AIBridge-Anything": "1",
        "Anthropic-Version": "2023-06-01",
        "Anthropic-Beta": "tools-2024",
        "User-Agent": "me/1",
        "X-App": "kept",
        "X-Custom": "unknown",
        "X-Team": "kept",
    }
    async with gateway(forward_headers=["X-Team"]) as gate:
        method, path, body = (
            ("POST", MESSAGES.target, MESSAGES.ask()) if intercepted else ("GET", "/ai/anthropic/v1/models", b"")
        )
        asked = asyncio.create_task(gate.request(method, path, body, headers))
        call = await gate.upstream.call()
        assert call.header("x-api-key") == ANTHROPIC_KEY
        assert call.header("x-app") == "kept"
        assert call.header("x-team") == "kept"
        assert call.header("anthropic-version") == "2023-06-01"
        assert call.header("anthropic-beta") == "tools-2024"
        assert call.header("user-agent") == "me/1"
        assert call.header("host") == f"127.0.0.1:{gate.upstream.port}"
        assert not call.header_names & {
            "authorization",
            "cookie",
            "x-custom",
            "x-hop",
            "te",
            "keep-alive",
            "x-forwarded-for",
            "x-aibridge-anything",
        }
        down = [
            JSON,
            ("Set-Cookie", "up=1"),
            ("Connection", "X-Up-Hop"),
            ("X-Up-Hop", "1"),
            ("Keep-Alive", "timeout=9"),
            ("Strict-Transport-Security", "max-age=1"),
            ("Request-Id", "r-1"),
            ("X-Twice", "a"),
            ("X-Twice", "b"),
        ]
        await call.answer(MESSAGES.blocking, headers=down)
        answer = await asked
        names = {name for name, _ in answer.headers}
        assert not names & {"set-cookie", "x-up-hop", "keep-alive", "strict-transport-security"}
        assert answer.header("request-id") == "r-1"
        assert [value for name, value in answer.headers if name == "x-twice"] == ["a", "b"]


async def test_a_key_of_the_callers_own_goes_up_and_their_token_does_not() -> None:
    """With `X-AIBridge-Token` the caller's own key goes upstream, the token does not, and the record says so."""
    own = "sk-of-alices-own-0042"
    for wire, header, value in (
        (CHAT, "Authorization", f"Bearer {own}"),
        (MESSAGES, "X-Api-Key", own),
    ):
        async with gateway(providers={"byok": True}) as gate:
            headers = {"X-AIBridge-Token": "k-alice", header: value}
            asked = asyncio.create_task(gate.request("POST", wire.target, wire.ask(), headers, key=None))
            call = await gate.upstream.call()
            assert call.header(header.lower()) == value
            assert "x-aibridge-token" not in call.header_names
            await call.answer(wire.blocking)
            assert (await asked).status == 200
            record = await gate.record()
            assert record.interception.credential_kind == "byok"
            assert record.interception.credential_hint == "sk-...0042"


async def test_a_key_of_the_callers_own_is_refused_where_that_is_off() -> None:
    """Without `BYOK` a caller's own key gets 403; the request is not paid with the central key."""
    async with gateway() as gate:
        headers = {"X-AIBridge-Token": "k-alice", "Authorization": "Bearer sk-own"}
        answer = await gate.request("POST", CHAT.target, CHAT.ask(), headers, key=None)
        assert answer.status == 403
        assert CHAT.is_error(answer.body)
        assert b"AIBRIDGE_PROVIDERS__OPENAI__BYOK" in answer.body
        assert gate.upstream.untouched


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/ai/nobody/v1/chat/completions", 404),
        ("POST", "/ai/openai/v1/images/generations", 404),
        ("GET", "/ai/openai/v1/chat/completions", 404),
        ("POST", "/ai/openai/v1/messages", 404),
        ("GET", "/ai/openai/v1/models/..%2f..%2fadmin", 404),
        ("GET", "/ai/openai/v1/models/%2e%2e/secrets", 404),
        ("GET", "/ai/openai/v1//models", 404),
        ("GET", "/ai/openai/v1/models/", 404),
        ("GET", "/ai/openai/V1/models", 404),
        ("TRACE", "/ai/openai/v1/models", 405),
        ("GET", "/ai/openai/", 404),
    ],
)
async def test_what_is_not_listed_does_not_exist(method: str, path: str, status: int) -> None:
    """Any other path or method gets an error in the provider's shape, and nothing goes upstream."""
    async with gateway() as gate:
        answer = await gate.request(method, path, CHAT.ask() if method == "POST" else b"")
        assert answer.status == status
        assert CHAT.is_error(answer.body)
        assert gate.upstream.untouched


async def test_a_path_without_a_route_below_the_provider_leads_nowhere() -> None:
    """The bare provider is not redirected to itself with a slash, to a URL made from the `Host` header."""
    async with gateway() as gate:
        answer = await gate.request("GET", "/ai/openai")
        assert (answer.status, answer.header("location")) == (404, None)


async def test_the_hosts_name_decides_nothing() -> None:
    """A `Host` header that names another path or host changes neither route nor upstream."""
    async with gateway() as gate:
        answer = await gate.request("GET", "/ai/openai/v1/secrets", headers={"Host": "x/ai/openai/v1/models?"})
        assert answer.status == 404
        asked = asyncio.create_task(gate.request("GET", "/ai/openai/v1/models", headers={"Host": "evil.example"}))
        call = await gate.upstream.call()
        assert call.path == "/v1/models"
        await call.answer(b"{}")
        await asked


@each
async def test_requests_that_name_no_model_are_refused(wire: Wire) -> None:
    """A body that is not a JSON object with a model gets 400 in the provider's shape."""
    async with gateway() as gate:
        for body in (b"", b"{", b"[]", b"{}", b'{"model": 5}', b"\xff\xfe"):
            answer = await gate.request("POST", wire.target, body)
            assert answer.status == 400
            assert wire.is_error(answer.body)
        assert gate.upstream.untouched


async def test_callers_without_a_key_are_refused_in_the_providers_shape() -> None:
    """A missing or wrong key gets 401 with a challenge, in the provider's shape, and nothing goes upstream."""
    async with gateway() as gate:
        for wire in WIRES:
            for key in (None, "k-wrong"):
                answer = await gate.request("POST", wire.target, wire.ask(), key=key)
                assert (answer.status, answer.header("www-authenticate")) == (401, "Bearer")
                assert wire.is_error(answer.body)
        assert gate.upstream.untouched
