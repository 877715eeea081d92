"""Responses unlike the vendors' own: those that an SDK would read are relayed, and unreadable ones are not retried."""

from __future__ import annotations

import asyncio
import gzip

import pytest

from fastapi_aibridge import Status

from .bodies import CHAT, WIRES, Wire
from .gateway import Gateway, gateway
from .upstream import Call

pytestmark = pytest.mark.anyio
each = pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
JSON = [("Content-Type", "application/json")]


async def ended(gate: Gateway) -> tuple[Status, str | None]:
    record = await gate.record()
    assert record.ending is not None
    return record.ending.status, record.ending.error


@each
@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/octet-stream", None])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf", b"\n\n", b": hello\n\n", b"id: 1\nretry: 5\n"])
async def test_a_stream_by_another_name(wire: Wire, kind: str | None, start: bytes) -> None:
    """A stream with another content type or an odd beginning is relayed event by event, and recorded as a stream."""
    async with gateway() as gate, gate.connected() as client:
        await client.send("POST", wire.target, wire.ask(stream=True))
        call = await gate.upstream.call()
        await call.head(200, [("Content-Type", kind)] if kind else [], chunked=True)
        await call.chunk(start + wire.events[0])
        await client.head()
        assert await client.piece() == start + wire.events[0]
        await call.chunk(b"".join(wire.events[1:]))
        await call.end()
        assert await client.piece() == b"".join(wire.events[1:])
        assert await ended(gate) == (Status.COMPLETED, None)
        usages = (await gate.record()).facts.token_usages
        assert [(one.input_tokens, one.output_tokens) for one in usages] == [(8, 2)] * (wire is not CHAT)


@each
@pytest.mark.parametrize("status", [201, 202, 206])
@pytest.mark.parametrize("stream", [False, True], ids=["blocking", "streamed"])
async def test_any_success_is_one(wire: Wire, status: int, stream: bool) -> None:
    """Every 2xx status is a success, as it is for the SDKs."""
    async with gateway() as gate:
        asked = asyncio.create_task(gate.request("POST", wire.target, wire.ask(stream=stream)))
        call = await gate.upstream.call()
        if stream:
            await call.head(status, [("Content-Type", "text/event-stream")], chunked=True)
            await call.chunk(b"".join(wire.events))
            await call.end()
        else:
            await call.answer(wire.blocking, status=status)
        answer = await asked
        assert (answer.status, answer.body) == (status, b"".join(wire.events) if stream else wire.blocking)
        assert await ended(gate) == (Status.COMPLETED, None)
        usages = (await gate.record()).facts.token_usages
        assert [one.input_tokens for one in usages] == [8] * (wire is not CHAT or not stream)


@each
@pytest.mark.parametrize("stream", [False, True], ids=["blocking", "streamed"])
@pytest.mark.parametrize("body", [b"<html>busy</html>", b"", b"[1]", b'"x"', b'{"id": '])
async def test_a_success_that_is_no_message_goes_to_the_client_as_it_came(
    wire: Wire, stream: bool, body: bytes
) -> None:
    """An unreadable success is relayed as it came, without a retry since it was billed, and recorded as failed."""
    async with gateway(providers={"max_retries": 2}) as gate:
        asked = asyncio.create_task(gate.request("POST", wire.target, wire.ask(stream=stream)))
        await (await gate.upstream.call()).answer(body, headers=[("Content-Type", "text/html"), ("X-Own", "1")])
        answer = await asked
        assert (answer.status, answer.body, answer.header("x-own")) == (200, body, "1")
        assert await ended(gate) == (Status.FAILED, "the upstream's answer is not a JSON object")
        assert gate.upstream.untouched


@each
async def test_a_success_that_cannot_be_decoded_is_no_broken_connection(wire: Wire) -> None:
    """A success that does not match its content encoding is relayed as it came, without a retry."""
    async with gateway(providers={"max_retries": 2}) as gate:
        headers = {"Accept-Encoding": "gzip"}
        asked = asyncio.create_task(gate.request("POST", wire.target, wire.ask(stream=False), headers))
        await (await gate.upstream.call()).answer(b"no gzip", headers=[*JSON, ("Content-Encoding", "gzip")])
        answer = await asked
        assert (answer.status, answer.body, answer.header("content-encoding")) == (200, b"no gzip", "gzip")
        status, error = await ended(gate)
        assert status is Status.FAILED
        assert error is not None
        assert error.startswith("the upstream's answer cannot be read")
        assert gate.upstream.untouched


async def test_an_error_in_a_list_is_read() -> None:
    """An error inside a list, as Gemini's compatible API sends it, is read."""
    async with gateway() as gate:
        asked = asyncio.create_task(gate.request("POST", CHAT.target, CHAT.ask(stream=False)))
        body = b'[{"error": {"code": 400, "message": "unsupported", "status": "INVALID_ARGUMENT"}}]'
        await (await gate.upstream.call()).answer(body, status=401)
        assert (await asked).body == body
        assert await ended(gate) == (Status.FAILED, "INVALID_ARGUMENT: unsupported")


async def test_a_bomb_in_a_stream_is_relayed_in_steps() -> None:
    """Two kilobytes of gzip that unfold to a hundred thousand events are relayed in time, and let other requests in."""
    packed = gzip.compress(CHAT.events[0] + b"data: [DONE]\n\n" * 100_000)
    async with gateway() as gate:
        asked = asyncio.create_task(gate.request("POST", CHAT.target, CHAT.ask(stream=True)))
        call = await gate.upstream.call()
        await call.stream(packed, headers=[("Content-Encoding", "gzip")])
        await call.end()
        other = asyncio.create_task(gate.request("POST", CHAT.target, CHAT.ask(stream=False)))
        await (await gate.upstream.call()).answer(CHAT.blocking)
        assert (await asyncio.wait_for(other, 15)).status == 200
        assert (await asyncio.wait_for(asked, 60)).body == CHAT.events[0] + b"data: [DONE]\n\n" * 100_000


REFUSED = (
    b'{"detail":[{"type":"extra_forbidden","loc":["body","stream_options"],"msg":"Extra inputs are not permitted"}]}'
)


@pytest.mark.parametrize("refusal", [REFUSED, b'{"error":{"message":"Unrecognized request argument"}}'])
async def test_a_server_that_knows_no_stream_options(refusal: bytes) -> None:
    """A server that rejects `stream_options` gets the chat again as the client wrote it, and later ones so at once."""
    async with gateway() as gate:
        body = CHAT.ask(stream=True)
        asked = asyncio.create_task(gate.request("POST", CHAT.target, body))
        first = await gate.upstream.call()
        assert b"stream_options" in first.body
        await first.answer(refusal, status=422)
        await _answer(await gate.upstream.call(), body)
        assert (await asked).body == b"".join(CHAT.events)
        again = asyncio.create_task(gate.request("POST", CHAT.target, body))
        await _answer(await gate.upstream.call(), body)
        assert (await again).status == 200
        assert gate.upstream.untouched
        records = await gate.records(2)
        assert [one.ending.status for one in records if one.ending] == [Status.COMPLETED] * 2
        assert (await gate.request("GET", "/ai/admin/metrics", key="t-admin")).body.count(
            b'aibridge_additions_refused_total{provider="openai",what="usage"} 1.0'
        ) == 1


async def _answer(call: Call, body: bytes) -> None:
    assert call.body == body
    await call.stream(*CHAT.events)
    await call.end()


async def test_a_request_that_is_refused_for_another_reason_is_not_repeated_for_ever() -> None:
    """A refusal that remains without the addition is passed on, and a server that took it once is not asked again."""
    async with gateway() as gate:
        asked = asyncio.create_task(gate.request("POST", CHAT.target, CHAT.ask(stream=True)))
        for number in range(2):
            await (await gate.upstream.call()).answer(b'{"error":{"message":"no %d"}}' % number, status=400)
        assert (await asked).body == b'{"error":{"message":"no 1"}}'
        asked = asyncio.create_task(gate.request("POST", CHAT.target, CHAT.ask(stream=True)))
        call = await gate.upstream.call()
        await call.stream(*CHAT.events)
        await call.end()
        assert (await asked).status == 200
        asked = asyncio.create_task(gate.request("POST", CHAT.target, CHAT.ask(stream=True)))
        await (await gate.upstream.call()).answer(b'{"error":{"message":"too long"}}', status=400)
        assert (await asked).status == 400
        assert gate.upstream.untouched
