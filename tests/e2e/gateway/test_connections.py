"""Connections that end, stall or fill up, on either side."""

from __future__ import annotations

import asyncio
import gc
import json
import random
from contextlib import suppress

import pytest

from fastapi_aibridge import Status
from tests.waiting import until

from .bodies import CHAT, RESPONSES, WIRES, Wire
from .gateway import CountingRecorder, Gateway, gateway
from .upstream import Call

pytestmark = pytest.mark.anyio
each = pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
LARGE_ANSWER = CHAT.blocking[:-1] + b',"more":"' + b"x" * 24 * 2**20 + b'"}'
"""More than the socket buffers of both ends of a loopback connection take."""
QUICK = 0.15
"""Seconds of a timeout that a test waits for."""


async def status_of(gate: Gateway) -> tuple[Status, int | None]:
    record = await gate.record()
    assert record.ending is not None
    return record.ending.status, record.ending.upstream_status


# The client leaves


@pytest.mark.parametrize("stream", [True, False])
@each
async def test_a_client_that_leaves_before_the_first_byte(wire: Wire, *, stream: bool) -> None:
    """A client that leaves before the first byte closes the upstream's connection and cancels the interception."""
    async with gateway() as gate:
        async with gate.connected() as client:
            await client.send("POST", wire.target, wire.ask(stream=stream))
            call = await gate.upstream.call()
        await call.until_gone()
        assert await status_of(gate) == (Status.CANCELLED, None)
        await gate.idle()


@each
async def test_a_client_that_leaves_in_the_middle(wire: Wire) -> None:
    """A client that leaves in the middle of a stream closes the upstream's connection and cancels the interception."""
    async with gateway() as gate:
        async with gate.connected() as client:
            await client.send("POST", wire.target, wire.ask(stream=True))
            call = await gate.upstream.call()
            await call.stream(wire.events[0], wire.events[1])
            await client.head()
            assert (await client.piece()).startswith(wire.events[0])
        await call.until_gone()
        assert await status_of(gate) == (Status.CANCELLED, 200)
        await gate.idle()


async def test_a_client_that_leaves_while_it_sends() -> None:
    """A request that never arrived completely has no interception, and nothing goes upstream."""
    async with gateway() as gate:
        async with gate.connected() as client:
            await client.send("POST", CHAT.target, b"{", {"Content-Length": "100"})
            await until(lambda: gate.aibridge.pool.metrics().leases)
        await gate.idle()
        assert gate.upstream.untouched
        assert isinstance(gate.recorder, CountingRecorder)
        assert gate.recorder.starts == []


async def test_a_client_that_leaves_a_passed_through_request() -> None:
    """A passed-through request closes the upstream's connection as well, before its first byte and after it."""
    for started in (False, True):
        async with gateway() as gate:
            async with gate.connected() as client:
                await client.send("GET", "/ai/openai/v1/models")
                call = await gate.upstream.call()
                if started:
                    await call.head(200, [("Content-Length", "100")])
                    await call.write(b"begun")
                    await client.head()
            await call.until_gone()
            await gate.idle()


async def test_a_client_that_closes_only_its_sending_side() -> None:
    """A half-closed connection counts as closed: HTTP servers cannot tell the difference."""
    async with gateway() as gate, gate.connected() as client:
        await client.send("POST", CHAT.target, CHAT.ask(stream=True))
        call = await gate.upstream.call()
        client.writer.write_eof()
        await call.until_gone()
        assert (await status_of(gate))[0] is Status.CANCELLED


# The upstream fails


@pytest.mark.parametrize("how", ["close", "reset", "half a head", "garbage"])
@each
async def test_an_upstream_that_breaks_before_the_first_byte(wire: Wire, how: str) -> None:
    """An upstream that breaks before the first byte gives 502 in the provider's shape, with the interception's id."""
    async with gateway() as gate:
        asked = asyncio.create_task(gate.request("POST", wire.target, wire.ask(stream=True)))
        call = await gate.upstream.call()
        if how == "half a head":
            await call.write(b"HTTP/1.1 200 OK\r\nContent-Ty")
        elif how == "garbage":
            await call.write(b"\x00\x01 this is not HTTP\r\n\r\n")
        if how == "reset":
            call.reset()
        else:
            call.close()
        answer = await asked
        assert answer.status == 502
        assert wire.is_error(answer.body)
        record = await gate.record()
        assert answer.header("x-aibridge-interception-id") == record.interception.id
        assert record.ending is not None
        assert record.ending.status is Status.FAILED


@pytest.mark.parametrize("how", ["close", "reset", "end"])
@each
async def test_an_upstream_that_breaks_in_the_middle(wire: Wire, how: str) -> None:
    """A stream that breaks ends after its last whole event, with an error event in the provider's shape."""
    async with gateway() as gate, gate.connected() as client:
        await client.send("POST", wire.target, wire.ask(stream=True))
        call = await gate.upstream.call()
        await call.stream(wire.events[0], wire.events[1] + wire.events[2][:20])
        await client.head()
        whole, seen, last = wire.events[0] + wire.events[1], b"", b""
        while len(seen) < len(whole):  # a reset may overtake what was sent before it
            seen += await client.piece()
        if how == "end":
            await call.end()
        elif how == "close":
            call.close()
        else:
            call.reset()
        while piece := await client.piece():
            last += piece
        assert seen == whole
        assert wire.is_error_event(last)
        assert await status_of(gate) == (Status.FAILED, 200)


@pytest.mark.parametrize(("agent", "last"), [("codex_exec/0.171.0", "response.failed"), ("OpenAI/Python 3", "error")])
async def test_codex_reads_no_error_events(agent: str, last: str) -> None:
    """Codex alone gets a `response.failed` after the error event, because it does not read error events."""
    async with gateway() as gate:
        body = RESPONSES.ask(stream=True)
        asked = asyncio.create_task(gate.request("POST", RESPONSES.target, body, {"User-Agent": agent}))
        call = await gate.upstream.call()
        await call.stream(RESPONSES.events[0])
        call.close()
        events = (await asked).body.removeprefix(RESPONSES.events[0]).split(b"\n\n")[:-1]
        told = [json.loads(event.partition(b"data: ")[2]) for event in events]
        assert [one["type"] for one in told] == ["error", last][: len(told)]
        assert told[-1]["type"] == last
        assert {(one.get("response") or one)["error"]["message"] for one in told} == {told[0]["message"]}


@each
async def test_a_stream_that_breaks_before_its_first_event(wire: Wire) -> None:
    """A stream that breaks before its first whole event gives 502, and not a stream with only an error."""
    async with gateway() as gate:
        asked = asyncio.create_task(gate.request("POST", wire.target, wire.ask(stream=True)))
        call = await gate.upstream.call()
        await call.stream(wire.events[0][:10])
        call.close()
        answer = await asked
        assert answer.status == 502
        assert wire.is_error(answer.body)


@each
async def test_a_blocking_answer_that_breaks_off(wire: Wire) -> None:
    """A blocking response that breaks off gives 502, so that no client takes it for a whole one."""
    async with gateway() as gate:
        asked = asyncio.create_task(gate.request("POST", wire.target, wire.ask()))
        call = await gate.upstream.call()
        await call.head(200, [("Content-Type", "application/json"), ("Content-Length", str(len(wire.blocking)))])
        await call.write(wire.blocking[:30])
        call.close()
        answer = await asked
        assert answer.status == 502
        assert wire.is_error(answer.body)
        assert (await status_of(gate))[0] is Status.FAILED


async def test_a_passed_through_answer_that_breaks_off() -> None:
    """A passed-through response that breaks off breaks the client's connection, so that it is not taken for whole."""
    async with gateway() as gate:
        for chunked in (True, False):
            async with gate.connected() as client:
                await client.send("GET", "/ai/openai/v1/models")
                call = await gate.upstream.call()
                await call.head(200, [] if chunked else [("Content-Length", "100")], chunked=chunked)
                await (call.chunk if chunked else call.write)(b"begun")
                assert (await client.head())[0] == 200
                assert (await client.reader.readuntil(b"begun")).endswith(b"begun")
                call.close()
                assert (await client.reader.read()).strip() == b""


async def test_an_upstream_that_cannot_be_reached() -> None:
    """An upstream that cannot be reached gives 502 without its address, for every kind of request."""
    async with gateway(providers={"base_url": "http://127.0.0.1:1/v1"}) as gate:
        for method, path, body in (("POST", CHAT.target, CHAT.ask()), ("GET", "/ai/openai/v1/models", b"")):
            answer = await gate.request(method, path, body)
            assert answer.status == 502
            assert CHAT.is_error(answer.body)
            assert b"127.0.0.1" not in answer.body


# Timeouts


@pytest.mark.parametrize("stream", [True, False])
@each
async def test_an_upstream_that_says_nothing(wire: Wire, *, stream: bool) -> None:
    """An upstream that sends nothing before the timeout gives 504, and its connection is closed."""
    async with gateway(providers={"read_timeout": QUICK}) as gate:
        asked = asyncio.create_task(gate.request("POST", wire.target, wire.ask(stream=stream)))
        call = await gate.upstream.call()
        answer = await asked
        assert answer.status == 504
        assert wire.is_error(answer.body)
        await call.until_gone()
        assert await status_of(gate) == (Status.FAILED, None)


@each
async def test_an_upstream_that_falls_silent(wire: Wire) -> None:
    """Silence in the middle of a stream ends it with an error event; the timeout counts from the last byte."""
    events = [wire.events[0], *[wire.events[1]] * 10]
    async with gateway(providers={"read_timeout": 1}) as gate:
        asked = asyncio.create_task(gate.request("POST", wire.target, wire.ask(stream=True)))
        call = await gate.upstream.call()
        await call.stream()
        for event in events:
            await asyncio.sleep(0.1)
            await call.chunk(event)
        answer = await asked
        whole = b"".join(events)
        assert answer.body.startswith(whole)
        assert wire.is_error_event(answer.body.removeprefix(whole))
        await call.until_gone()


# Slow readers


async def test_a_client_that_does_not_read_slows_the_upstream_down() -> None:
    """A client that does not read stops the upstream after some megabytes at most: nothing is buffered beyond that."""
    filler = b"data: " + b"x" * 65_530 + b"\n\n"
    async with gateway() as gate, gate.connected() as client:
        await client.send("POST", CHAT.target, CHAT.ask(stream=True))
        call = await gate.upstream.call()
        await call.stream(CHAT.events[0])
        await client.head()
        sent = 0
        with suppress(TimeoutError):
            while sent < 512:
                await asyncio.wait_for(call.chunk(filler), 0.3)
                sent += 1
        # The socket buffers of four ends of loopback connections, and some hundred kilobytes in the gateway.
        assert sent * len(filler) < 24 * 2**20, "the gateway took all that was sent"
        received = len(CHAT.events[0])
        assert await client.piece() == CHAT.events[0]
        unblocked = asyncio.create_task(_finish(call))
        while piece := await client.piece():
            received += len(piece)
        await unblocked
        assert received >= len(b"".join(CHAT.events)) + sent * len(filler)
        assert (await status_of(gate))[0] is Status.COMPLETED


async def _finish(call: Call) -> None:
    for event in CHAT.events[1:]:
        await call.chunk(event)
    await call.end()


async def test_a_client_that_does_not_read_and_leaves() -> None:
    """A stalled client that leaves closes the upstream's connection, although nothing could be written to it."""
    filler = b"data: " + b"x" * 65_530 + b"\n\n"
    async with gateway() as gate:
        async with gate.connected() as client:
            await client.send("POST", CHAT.target, CHAT.ask(stream=True))
            call = await gate.upstream.call()
            await call.stream(CHAT.events[0])
            await client.head()
            with suppress(TimeoutError):
                while True:
                    await asyncio.wait_for(call.chunk(filler), 0.2)
        await call.until_gone()
        assert (await status_of(gate))[0] is Status.CANCELLED
        await gate.idle()


async def test_an_answer_that_nobody_reads_is_not_over() -> None:
    """A request lasts until its client has taken the answer, so that what waits for slow clients is limited."""
    async with gateway() as gate:
        async with gate.connected() as client:
            await client.send("POST", CHAT.target, CHAT.ask())
            call = await gate.upstream.call()
            await call.answer(LARGE_ANSWER)
            await client.head()
            await asyncio.sleep(0.3)
            assert gate.aibridge.pool.metrics().leases == 1
            got = await client.reader.readexactly(len(LARGE_ANSWER))
            assert got == LARGE_ANSWER
            await gate.idle()
            assert (await status_of(gate))[0] is Status.COMPLETED
        async with gate.connected() as client:
            await client.send("POST", CHAT.target, CHAT.ask())
            call = await gate.upstream.call()
            await call.answer(LARGE_ANSWER)
            await client.head()
        await gate.idle()


async def test_many_events_in_one_segment_stay_whole() -> None:
    """A burst of thousands of events arrives complete and in order."""
    events = [b'data: {"n": %d}\n\n' % number for number in range(20_000)]
    stream = CHAT.events[0] + b"".join(events) + b"".join(CHAT.events[1:])
    async with gateway() as gate:
        asked = asyncio.create_task(gate.request("POST", CHAT.target, CHAT.ask(stream=True)))
        call = await gate.upstream.call()
        await call.stream(stream)
        await call.end()
        assert (await asked).body == stream


# All faults at once


async def test_each_interception_ends_once_whatever_happens() -> None:
    """Under random concurrent faults on both sides each start has one end, and nothing is left over."""
    dice = random.Random(7)

    async def play_upstream(gate: Gateway) -> None:
        while True:
            call = await gate.upstream._calls.get()
            wire = next(wire for wire in WIRES if wire.path == call.path)
            with suppress(ConnectionError):
                match dice.randrange(8):
                    case 0:
                        call.reset()
                    case 1:
                        await call.answer(b'{"error": {"message": "no"}}', status=dice.choice([400, 429, 500]))
                    case 2:
                        await call.stream(wire.events[0], wire.events[1][:10])
                        call.close()
                    case 3:
                        await call.head(200, [("Content-Type", "application/json"), ("Content-Length", "100")])
                        await call.write(b"{")
                        call.reset()
                    case 4:
                        pass  # silence, until the timeout
                    case 5:
                        await call.answer(wire.blocking)
                    case _:
                        await call.stream(*wire.events)
                        await call.end()

    async def use(gate: Gateway) -> None:
        wire = dice.choice(WIRES)
        async with gate.connected() as client:
            await client.send("POST", wire.target, wire.ask(stream=dice.random() < 0.7))
            if dice.random() < 0.3:
                await asyncio.sleep(dice.random() * 0.1)
                return
            with suppress(asyncio.IncompleteReadError):
                await client.answer()

    async with gateway(providers={"read_timeout": 0.3}) as gate:
        upstream = asyncio.create_task(play_upstream(gate))
        for _ in range(6):
            await asyncio.gather(*(use(gate) for _ in range(40)))
        await gate.idle()
        upstream.cancel()
        recorder = gate.recorder
        assert isinstance(recorder, CountingRecorder)
        assert sorted(recorder.starts) == sorted(recorder.ends)
        assert len(set(recorder.ends)) == len(recorder.ends)
        records = await gate.records(len(recorder.ends))
        assert {record.ending.status for record in records if record.ending} == {
            Status.COMPLETED,
            Status.FAILED,
            Status.CANCELLED,
        }
        metrics = gate.aibridge.pool.metrics()
        assert (metrics.leases, metrics.draining) == (0, 0)
    gc.collect()
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task() and not task.done()]
    assert [task for task in left if "fastapi_aibridge" in repr(task)] == []
