"""Requests that no client would send get a status below 500 or a closed connection, without a traceback or a hang."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.e2e.gateway.bodies import CHAT, WIRES, Wire
from tests.e2e.gateway.client import KEY

from .harness import GatewayHarness, harness

pytestmark = pytest.mark.anyio
each_wire = pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
fuzz = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module", name="home")
async def _home(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayHarness]:
    async with harness(tmp_path_factory.mktemp("fuzz")) as one:
        yield one


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail the test if any request leaves an error or a traceback in the log."""
    with caplog.at_level(logging.INFO):
        yield
    assert [
        record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR or record.exc_info
    ] == []


async def status_of(home: GatewayHarness, wire: Wire, body: bytes, *headers: bytes) -> int:
    """Return the response's status: 200 where the body went upstream, once, else that of an error of the provider's."""
    before = len(home.heads)
    status, answer = await home.post(wire.target, body, *headers)
    assert len(home.heads) - before == (status == 200)
    if status != 200:
        assert status in (400, 413, 415), (status, answer[:300])
        assert wire.is_error(answer)
    return status


DEEP = 100_000
REFUSED = {
    "nothing": b"",
    "white space": b" \r\n\t",
    "no JSON": b"model=gpt-5",
    "cut off": b'{"model": "m-1", "messages": [',
    "null": b"null",
    "a list": b"[]",
    "a text": b'"model"',
    "a number": b"1",
    "not a number": b'{"model": "m", "x": NaN, "y": -Infinity}',
    "two values": b'{"model": "m"}{"model": "m"}',
    "single quotes": b"{'model': 'm'}",
    "a comma too many": b'{"model": "m",}',
    "a comment": b'{"model": "m" /* x */}',
    "UTF-16": '{"model": "m"}'.encode("utf-16"),
    "no UTF-8": b'{"model": "\xff\xfe"}',
    "overlong UTF-8": b'{"model": "\xc0\xaf"}',
    "half a surrogate": b'{"model": "\\ud800", "stream": true}',
    "half a surrogate in UTF-8": b'{"model": "\xed\xa0\x80"}',
    "NUL as it is": b'{"model": "a\x00b"}',
    "all NUL": bytes(1000),
    "control characters": b'{"model": "a\nb"}',
    "lists in lists": b'{"model": "m", "messages": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    "lists without end": b"[" * DEEP,
    "objects in objects": b'{"model": "m", "messages": ' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}",
    "objects without end": b'{"a":' * DEEP,
    "the same name twice": b'{"model": "a", "model": "b", "stream": false, "stream": true, "messages": 1}',
    "no model": b'{"messages": []}',
    "model of null": b'{"model": null}',
    "model of a number": b'{"model": 5}',
    "model of a list": b'{"model": ["m"]}',
    "empty model": b'{"model": ""}',
    "model of a megabyte": b'{"model": "' + b"m" * 2**20 + b'"}',
}  # fmt: skip
RELAYED = {
    "byte order mark": b'\xef\xbb\xbf{"model": "m"}',
    "NUL escaped": b'{"model": "a\\u0000b", "messages": [{"role": "user", "content": "\\u0000"}], "input": "\\u0000"}',
    "deep below the last message": b'{"model": "m", "messages": [{"role": "user", "content": '
    + b"[" * 900 + b"]" * 900 + b'}], "input": ' + b"[" * 900 + b"]" * 900 + b"}",
    "huge numbers": b'{"model": "m", "max_tokens": 1e400, "n": -1e99999, "seed": ' + b"9" * 100_000 + b"}",
    "many digits": b'{"model": "m", "temperature": 0.' + b"1" * 100_000 + b"}",
    "names of names": b'{"__proto__": {"model": "m"}, "constructor": 1, "model": "m"}',
    "stream of a text": b'{"model": "m", "stream": "yes"}',
    "stream of a number": b'{"model": "m", "stream": 1}',
    "odd options": b'{"model": "m", "stream": true, "stream_options": []}',
    "more odd options": b'{"model": "m", "stream": true, "stream_options": {"include_usage": "maybe"}}',
    "odd messages": b'{"model": "m", "messages": [null, 1, "x", [], {}, {"role": 5}, {"role": "user", "content": {}}]}',
    "odd parts": b'{"model": "m", "messages": [{"role": "user", "content": [null, 1, {"type": 5}, {"type": "text"}]}]}',
    "odd input": b'{"model": "m", "input": [null, 1, {"role": "user", "content": [5, {"type": "input_text"}]}]}',
    "odd tools": b'{"model": "m", "tools": {"a": 1}, "tool_choice": []}',
    "odd metadata": b'{"model": "m", "metadata": {"user_id": {"session_id": [1]}}}',
    "odd user": b'{"model": "m", "metadata": {"user_id": "{\\"session_id\\": ' + b"[" * 500 + b'"}}',
    "escaped names": b'{"\\u006dodel": "m", "str\\u0065am": true}',
    "many names": b'{"model": "m"' + b"".join(b', "a%d": 1' % number for number in range(50_000)) + b"}",
}  # fmt: skip


@each_wire
@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED)
async def test_bodies_that_are_refused(home: GatewayHarness, wire: Wire, body: bytes) -> None:
    """A body that is no JSON object, is too deep, or names no model is refused in the provider's shape."""
    assert await status_of(home, wire, body) == 400


@each_wire
@pytest.mark.parametrize("body", RELAYED.values(), ids=RELAYED)
async def test_bodies_that_are_relayed(home: GatewayHarness, wire: Wire, body: bytes) -> None:
    """A body whose members are odd is relayed: the provider judges them."""
    assert await status_of(home, wire, body) == 200


@each_wire
@pytest.mark.parametrize("encoding", [b"gzip", b"deflate", b"zstd", b"br", b"gzip, gzip", b"x" * 5000, b"\xff"])
async def test_hostile_encodings(home: GatewayHarness, wire: Wire, encoding: bytes) -> None:
    """A body that does not match its encoding, or has an unknown one, is refused in the provider's shape."""
    for body in (wire.ask(), b"", b"\x1f\x8b", gzip.compress(wire.ask())[:-9], gzip.compress(b" " * 2**24)):
        assert await status_of(home, wire, body, b"Content-Encoding: " + encoding) != 200


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
members = st.sampled_from(
    ["messages", "input", "stream", "stream_options", "tools", "tool_choice", "metadata", "user", "system",
     "max_tokens", "instructions", "previous_response_id", "functions", "thinking", "model"]
)  # fmt: skip


@each_wire
@fuzz
@given(extra=st.dictionaries(members, values, max_size=5))
async def test_members_of_any_kind(home: GatewayHarness, wire: Wire, extra: dict[str, Any]) -> None:
    """A member of any type is relayed, or refused in the provider's shape."""
    body = json.dumps({**json.loads(wire.ask()), **extra}).encode("utf-8", "surrogatepass")
    await status_of(home, wire, body)


@each_wire
@fuzz
@given(
    stream=st.booleans(), start=st.integers(0, 200), size=st.integers(0, 200), other=st.none() | st.binary(max_size=20)
)
async def test_damaged_bodies(
    home: GatewayHarness, wire: Wire, stream: bool, start: int, size: int, other: bytes | None
) -> None:
    """A good body with a piece lost, doubled or replaced is relayed, or refused in the provider's shape."""
    body = wire.ask(stream=stream)
    piece = body[start : start + size] * 2 if other is None else other
    await status_of(home, wire, body[:start] + piece + body[start + size :])


def request(*lines: bytes, target: bytes = CHAT.target.encode(), rest: bytes = b"") -> bytes:
    head = [b"POST %b HTTP/1.1" % target, b"Host: x", b"Authorization: Bearer " + KEY.encode(), *lines]
    return b"\r\n".join(head) + b"\r\n\r\n" + rest


ASK = CHAT.ask()
CHUNKED = b"Transfer-Encoding: chunked"
LENGTH = b"Content-Length: %d" % len(ASK)
FRAMING = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": b"GET /ai/healthz\r\n\r\n",
    "HTTP/9.9": b"GET /ai/healthz HTTP/9.9\r\n\r\n",
    "no target": b"GET  HTTP/1.1\r\n\r\n",
    "a line without end": b"POST /" + b"x" * 300_000,
    "a target of a megabyte": b"GET /ai/openai/v1/models/" + b"x" * 2**20 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "a header of a megabyte": request(b"X-Large: " + b"x" * 10**6, LENGTH, rest=ASK),
    "a megabyte of headers": request(*(b"X-%d: x" % number for number in range(10**6 // 12)), LENGTH, rest=ASK),
    "a name of a megabyte": request(b"x" * 10**6 + b": 1", LENGTH, rest=ASK),
    "no colon": request(b"whatever", LENGTH, rest=ASK),
    "no name": request(b": x", LENGTH, rest=ASK),
    "NUL in a value": request(b"X-A: a\x00b", LENGTH, rest=ASK),
    "NUL in a name": request(b"X-\x00: a", LENGTH, rest=ASK),
    "line break in a value": request(b"X-A: a\rX-B: b", LENGTH, rest=ASK),
    "folded header": request(b"X-A: a\r\n b", LENGTH, rest=ASK),
    "bytes beyond ASCII": request(b"X-A: \xff\xfe", b"User-Agent: \xff\xc3\x28", LENGTH, rest=ASK),
    "session of odd bytes": request(b"X-Claude-Code-Session-Id: \xff\xfe\xed\xa0\x80", LENGTH, rest=ASK),
    "line feeds alone": request(LENGTH, rest=ASK).replace(b"\r\n", b"\n"),
    "a length of none": request(b"Content-Length:", rest=ASK),
    "a negative length": request(b"Content-Length: -1", rest=ASK),
    "a length with a sign": request(b"Content-Length: +%d" % len(ASK), rest=ASK),
    "a length in hex": request(b"Content-Length: 0x10", rest=ASK),
    "a length of many digits": request(b"Content-Length: " + b"9" * 5000, rest=ASK),
    "a length beyond 64 bits": request(b"Content-Length: 18446744073709551617", rest=ASK),
    "two lengths": request(LENGTH, b"Content-Length: 5", rest=ASK),
    "the same length twice": request(LENGTH, LENGTH, rest=ASK),
    "a list of lengths": request(b"Content-Length: %d, 5" % len(ASK), rest=ASK),
    "both length headers": request(CHUNKED, LENGTH, rest=b"0\r\n\r\nGET /ai/admin/pool HTTP/1.1\r\n\r\n"),
    "both, the other way round": request(LENGTH, CHUNKED, rest=b"%x\r\n%b\r\n0\r\n\r\n" % (len(ASK), ASK)),
    "chunked and more": request(b"Transfer-Encoding: chunked, identity", rest=b"0\r\n\r\n"),
    "chunked twice": request(CHUNKED, CHUNKED, rest=b"0\r\n\r\n"),
    "an unknown coding": request(b"Transfer-Encoding: xchunked", LENGTH, rest=ASK),
    "space before the colon": request(b"Transfer-Encoding : chunked", LENGTH, rest=ASK),
    "a tab before the word": request(b"Transfer-Encoding:\tchunked", rest=b"0\r\n\r\n"),
    "a line break before the word": request(b"Transfer-Encoding:\r\n chunked", LENGTH, rest=ASK),
    "chunk size of none": request(CHUNKED, rest=b"\r\n\r\n"),
    "chunk size of words": request(CHUNKED, rest=b"zz\r\n"),
    "negative chunk size": request(CHUNKED, rest=b"-5\r\nhello\r\n0\r\n\r\n"),
    "chunk size with 0x": request(CHUNKED, rest=b"0x5\r\nhello\r\n0\r\n\r\n"),
    "chunk size beyond 64 bits": request(CHUNKED, rest=b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
    "chunk shorter than its size": request(CHUNKED, rest=b"4\r\nhello\r\n0\r\n\r\n"),
    "chunk size and line feed": request(CHUNKED, rest=b"5\nhello\n0\n\n"),
    "long chunk extension": request(CHUNKED, rest=b"5;" + b"x" * 300_000 + b"\r\nhello\r\n0\r\n\r\n"),
    "chunks of one byte": request(CHUNKED, rest=b"".join(b"1\r\n%c\r\n" % one for one in ASK) + b"0\r\n\r\n"),
    "chunks of a size of many zeros": request(CHUNKED, rest=b"0" * 5000 + b"5\r\nhello\r\n0\r\n\r\n"),
    "trailers": request(CHUNKED, rest=b"%x\r\n%b\r\n0\r\nAuthorization: Bearer other\r\n\r\n" % (len(ASK), ASK)),
    "an expectation": request(b"Expect: 100-continue", LENGTH, rest=ASK),
    "an odd expectation": request(b"Expect: miracles", LENGTH, rest=ASK),
    "an upgrade": request(b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings", LENGTH, rest=ASK),
    "a websocket": b"GET /ai/openai/v1/responses HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
}


@pytest.mark.parametrize("data", FRAMING.values(), ids=FRAMING)
async def test_hostile_framing(home: GatewayHarness, data: bytes) -> None:
    """Odd framing gets a status below 500 or a closed connection, and the server goes on."""
    # The server waits for the rest of an incomplete head, so those are only sent with our side closed.
    for finish in (False, True) if b"\r\n\r\n" in data else (True,):
        answer = await home.say(data, finish=finish)
        if answer and not answer.startswith(b"HTTP/1.1 100 "):
            assert b"200" <= answer.split(b" ")[1] < b"500", answer[:300]
    await home.alive()


async def test_headers_over_the_limit(home: GatewayHarness) -> None:
    """A megabyte of headers, in one or in many, is refused in the provider's shape and does not go upstream."""
    for wire in WIRES:
        before = len(home.heads)
        for headers in ((b"X-Large: " + b"x" * 10**6,), tuple(b"X-%d: %b" % (one, b"x" * 100) for one in range(10**4))):
            status, body = await home.post(wire.target, wire.ask(), *headers)
            assert status == 431
            assert wire.is_error(body)
        assert len(home.heads) == before


@fuzz
@given(
    st.lists(
        st.sampled_from([b"POST ", b"GET ", b"/ai/openai/v1/models", b" HTTP/1.1", b"\r\n", b"\n", b"Host: x", b": ",
                         b"0", CHUNKED, LENGTH, b"Content-Length: ", b"Authorization: Bearer " + KEY.encode(), ASK,
                         b"\x00"])
        | st.binary(max_size=6),
        max_size=24,
    ).map(b"".join)
)  # fmt: skip
async def test_any_bytes(home: GatewayHarness, data: bytes) -> None:
    """No sequence of bytes causes a server error."""
    answer = await home.say(data, finish=True)
    if answer:
        assert answer.split(b" ")[1] < b"500", answer[:300]
    await home.alive()
