"""Requests leave nothing to the garbage collector, because a full collection stops all streams."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from fastapi_aibridge.exchange import interruption
from tests.garbage import nothing_left

from .bodies import WIRES, Wire
from .client import Answer
from .gateway import Gateway, gateway
from .upstream import Call

pytestmark = pytest.mark.anyio

each = pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
streamed_or_not = pytest.mark.parametrize("stream", [False, True], ids=["blocking", "streamed"])


async def ask(gate: Gateway, wire: Wire, play: Callable[[Call], Awaitable[None]], *, stream: bool) -> Answer:
    async with gate.connected() as client:
        await client.send("POST", wire.target, wire.ask(stream=stream))
        await play(await gate.upstream.call())
        return await client.answer()


@each
@streamed_or_not
async def test_a_message_leaves_nothing(wire: Wire, stream: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message leaves no garbage, even if it took so long that the client's connection was watched."""
    monkeypatch.setattr(interruption, "WATCH_AFTER", 0.0)

    async def play(call: Call) -> None:
        await asyncio.sleep(0.01)
        if stream:
            await call.stream(*wire.events)
            await call.end()
        else:
            await call.answer(wire.blocking)

    async with gateway() as gate:
        with nothing_left():
            assert (await ask(gate, wire, play, stream=stream)).status == 200
            await gate.record()


@each
async def test_an_error_of_the_upstreams_leaves_nothing(wire: Wire) -> None:
    async def play(call: Call) -> None:
        await call.answer(b'{"error": {"message": "slow down"}}', status=429)

    async with gateway() as gate:
        with nothing_left():
            assert (await ask(gate, wire, play, stream=True)).status == 429
            await gate.record()


@each
async def test_a_client_that_leaves_leaves_nothing(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "WATCH_AFTER", 0.0)
    async with gateway() as gate:
        with nothing_left():
            async with gate.connected() as client:
                await client.send("POST", wire.target, wire.ask(stream=True))
                call = await gate.upstream.call()
                await call.stream(wire.events[0])
                await client.head()
            await call.until_gone()
            await gate.record()


async def test_what_is_passed_through_or_refused_leaves_nothing() -> None:
    async with gateway() as gate:
        with nothing_left():
            async with gate.connected() as client:
                await client.send("GET", "/ai/openai/v1/models")
                await (await gate.upstream.call()).answer(b"{}")
                assert (await client.answer()).status == 200
                await client.send("GET", "/ai/openai/v1/files")
                assert (await client.answer()).status == 404
                await client.send("POST", "/ai/openai/v1/chat/completions", b"no JSON")
                assert (await client.answer()).status == 400
