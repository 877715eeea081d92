"""The shutdown of the app while requests run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest
from fastapi import FastAPI

from fastapi_aibridge import AIBridge, Status
from fastapi_aibridge.exchange import response_writer

from .bodies import CHAT, WIRES, Wire
from .client import Answer
from .gateway import ADMIN, LIMIT, CountingRecorder, Gateway, gateway, settings_for
from .server import served
from .upstream import Call, Upstream

pytestmark = pytest.mark.anyio
each = pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)


class Ending:
    """A gateway whose lifespan ends while the server runs on, as with servers that drain in their own time."""

    def __init__(self, gate: Gateway, lifespan: AsyncExitStack) -> None:
        self.gate = gate
        self._lifespan = lifespan

    def end(self) -> asyncio.Task[None]:
        return asyncio.create_task(self._lifespan.aclose())


@asynccontextmanager
async def ending(**values: Any) -> AsyncIterator[Ending]:
    app, recorder = FastAPI(), CountingRecorder()
    async with AsyncExitStack() as stack, AsyncExitStack() as lifespan:
        upstream = await stack.enter_async_context(Upstream())
        aibridge = AIBridge(settings_for(upstream.url, **values), recorder=recorder)
        app.include_router(aibridge.router, prefix="/ai")
        await lifespan.enter_async_context(aibridge.lifespan(app))
        server = await stack.enter_async_context(served(app, lifespan="off"))
        yield Ending(Gateway(aibridge, upstream, recorder, server), lifespan)


@asynccontextmanager
async def begun(gate: Gateway, wire: Wire = CHAT) -> AsyncIterator[tuple[asyncio.Task[Answer], Call]]:
    """Begin a stream, and hold it after its first event has reached the client."""
    async with gate.connected() as client:
        await client.send("POST", wire.target, wire.ask(stream=True))
        asked = asyncio.create_task(client.answer())
        call = await gate.upstream.call()
        await call.stream(wire.events[0])
        await client.received.wait()
        yield asked, call


async def test_streams_may_finish_within_the_grace() -> None:
    """A stream that ends within the grace period is whole, and the end of the lifespan waits for it."""
    async with ending(shutdown_grace=60) as house, begun(house.gate) as (asked, call):
        end = house.end()
        await asyncio.sleep(0.05)
        assert not end.done()
        for event in CHAT.events[1:]:
            await call.chunk(event)
        await call.end()
        assert (await asked).body == b"".join(CHAT.events)
        await asyncio.wait_for(end, LIMIT)
        assert [(await house.gate.record()).ending] != [None]


@each
async def test_streams_that_take_longer_end_with_an_error_event(wire: Wire) -> None:
    """After the grace period a stream gets the provider's error event, the upstream is closed, the end recorded."""
    async with ending(shutdown_grace=0.1) as house, begun(house.gate, wire) as (asked, call):
        await asyncio.wait_for(house.end(), LIMIT)
        answer = await asked
        assert answer.whole
        assert answer.body.startswith(wire.events[0])
        assert wire.is_error_event(answer.body.removeprefix(wire.events[0]))
        await call.until_gone()
        record = await house.gate.record()
        assert record.ending is not None
        assert record.ending.status is Status.FAILED


@each
async def test_requests_that_wait_for_their_first_byte_get_503(wire: Wire) -> None:
    """After the grace period a request without a response gets 503 with `Retry-After`."""
    async with ending(shutdown_grace=0.1) as house:
        asked = asyncio.create_task(house.gate.request("POST", wire.target, wire.ask()))
        await house.gate.upstream.call()
        await asyncio.wait_for(house.end(), LIMIT)
        answer = await asked
        assert answer.status == 503
        assert answer.header("retry-after")
        assert wire.is_error(answer.body)


async def test_new_requests_during_the_grace_get_503() -> None:
    """During the grace period new requests to providers get 503 in the provider's shape, with `Retry-After`."""
    async with ending(shutdown_grace=60) as house, begun(house.gate) as (asked, call):
        gate, end = house.gate, house.end()
        await asyncio.sleep(0.05)
        for method, path, body in (("POST", CHAT.target, CHAT.ask()), ("GET", "/ai/openai/v1/models", b"")):
            answer = await gate.request(method, path, body)
            assert (answer.status, answer.header("connection")) == (503, "close")
            assert answer.header("retry-after")
            assert CHAT.is_error(answer.body)
        pool = await gate.request("GET", "/ai/admin/pool", key=ADMIN)
        assert pool.status == 200
        call.close()
        assert (await asked).whole
        await asyncio.wait_for(end, LIMIT)


async def test_a_passed_through_answer_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    """After the grace period a passed-through response breaks off visibly, without a second head in it."""
    async with ending(shutdown_grace=0.1) as house, house.gate.connected() as client:
        gate = house.gate
        await client.send("GET", "/ai/openai/v1/models")
        asked = asyncio.create_task(client.answer())
        call = await gate.upstream.call()
        await call.head(200, chunked=True)
        await call.chunk(b"begun")
        await client.received.wait()
        waiting = asyncio.create_task(gate.request("GET", "/ai/openai/v1/models"))
        second = await gate.upstream.call()
        await asyncio.wait_for(house.end(), LIMIT)
        answer = await asked
        assert (answer.status, answer.body, answer.whole) == (200, b"begun", False)
        answer = await waiting
        assert answer.status == 503
        assert CHAT.is_error(answer.body)
        await call.until_gone()
        await second.until_gone()
    assert "Expected ASGI message" not in caplog.text


async def test_a_client_that_does_not_read_does_not_hold_the_end_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stalled client has a bounded time to take the error; after that the shutdown goes on without it."""
    monkeypatch.setattr(response_writer, "FAREWELL", 0.2)
    filler = b"data: " + b"x" * 65_530 + b"\n\n"
    async with ending(shutdown_grace=0.1) as house, house.gate.connected() as client:
        await client.send("POST", CHAT.target, CHAT.ask(stream=True))
        call = await house.gate.upstream.call()
        await call.stream(CHAT.events[0])
        await client.head()
        with suppress(TimeoutError):
            while True:
                await asyncio.wait_for(call.chunk(filler), 0.2)
        await asyncio.wait_for(house.end(), LIMIT)
        await call.until_gone()
        record = await house.gate.record()
        assert record.ending is not None
        assert record.ending.status is Status.FAILED


async def test_an_answer_that_nobody_reads_does_not_hold_the_end_up() -> None:
    """A client that does not take the last bytes of an answer delays the shutdown by no more than the grace."""
    async with ending(shutdown_grace=0.1) as house, house.gate.connected() as client:
        await client.send("POST", CHAT.target, CHAT.ask())
        call = await house.gate.upstream.call()
        await call.answer(CHAT.blocking[:-1] + b',"more":"' + b"x" * 24 * 2**20 + b'"}')
        await client.head()
        await asyncio.wait_for(house.end(), LIMIT)
        record = await house.gate.record()
        assert record.ending is not None
        assert record.ending.status is Status.FAILED


@each
async def test_uvicorns_own_end_tells_the_client(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    """If uvicorn's graceful timeout cancels the request, the client gets the error event, and the end is recorded."""
    caplog.set_level(logging.CRITICAL, "uvicorn.error")
    server = {"as_deployed": True, "timeout_graceful_shutdown": 1}
    async with gateway(server=server) as gate, begun(gate, wire) as (asked, call):
        await gate.server.stop()
        answer = await asked
        assert answer.whole
        assert answer.body.startswith(wire.events[0])
        assert wire.is_error_event(answer.body.removeprefix(wire.events[0]))
        await call.until_gone()
        record = await gate.record()
        assert record.ending is not None


async def test_uvicorn_waits_for_a_stream_that_ends_in_time() -> None:
    """A stream that ends within uvicorn's graceful timeout is whole."""
    server = {"as_deployed": True, "timeout_graceful_shutdown": 5}
    async with gateway(server=server) as gate, begun(gate) as (asked, call):
        stop = asyncio.create_task(gate.server.stop())
        await asyncio.sleep(0.15)
        for event in CHAT.events[1:]:
            await call.chunk(event)
        await call.end()
        assert (await asked).body == b"".join(CHAT.events)
        await stop
