"""The time for which a handler of the app's own holds its bridge."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI
from fastapi.responses import StreamingResponse

from fastapi_aibridge import RequestBridge, get_bridge
from tests.waiting import until

from .gateway import Gateway, gateway

pytestmark = pytest.mark.anyio


class Handler:
    """An app with a handler that streams the pieces given by the test, and one that fails."""

    def __init__(self) -> None:
        self.pieces: asyncio.Queue[bytes] = asyncio.Queue()
        self.left = asyncio.Event()
        self.later = asyncio.Event()
        self.app = FastAPI()
        self.app.get("/stream")(self.stream)
        self.app.get("/fails")(self.fails)

    async def stream(
        self, bridge: Annotated[RequestBridge, Depends(get_bridge)], background: BackgroundTasks
    ) -> StreamingResponse:
        background.add_task(self.later.wait)
        return StreamingResponse(self._body(), media_type="text/plain", background=background)

    async def _body(self) -> AsyncIterator[bytes]:
        try:
            while piece := await self.pieces.get():
                yield piece
        finally:
            self.left.set()

    async def fails(self, bridge: Annotated[RequestBridge, Depends(get_bridge)]) -> None:
        raise RuntimeError("the handler's own")


def leases(gate: Gateway) -> int:
    return gate.aibridge.pool.metrics().leases


async def test_until_the_last_byte_of_a_stream() -> None:
    """The lease outlives the handler's return: it is held until the streamed response has ended."""
    handler = Handler()
    async with gateway(app=handler.app) as gate, gate.connected() as client:
        await client.send("GET", "/stream")
        handler.pieces.put_nowait(b"one")
        await client.head()
        assert await client.piece() == b"one"
        assert leases(gate) == 1
        gate.aibridge.pool.replace_providers(gate.aibridge.pool.providers)
        await asyncio.sleep(0.05)
        assert gate.aibridge.pool.metrics().draining == 1
        handler.pieces.put_nowait(b"two")
        assert await client.piece() == b"two"
        handler.pieces.put_nowait(b"")
        assert await client.piece() == b""
        handler.later.set()
        await gate.idle()
        await until(lambda: not gate.aibridge.pool.metrics().draining)


async def test_until_the_background_tasks_are_done() -> None:
    """A background task of the response may use the bridge: the lease is held until it is done."""
    handler = Handler()
    async with gateway(app=handler.app) as gate, gate.connected() as client:
        await client.send("GET", "/stream")
        handler.pieces.put_nowait(b"")
        assert (await client.answer()).body == b""
        assert leases(gate) == 1
        handler.later.set()
        await gate.idle()


async def test_until_the_client_leaves() -> None:
    """A client that leaves in the middle ends the response and releases the lease."""
    handler = Handler()
    handler.later.set()
    async with gateway(app=handler.app) as gate:
        async with gate.connected() as client:
            await client.send("GET", "/stream")
            handler.pieces.put_nowait(b"one")
            await client.head()
            assert leases(gate) == 1
        await gate.idle()
        await asyncio.wait_for(handler.left.wait(), 30)


async def test_until_the_handler_fails(caplog: pytest.LogCaptureFixture) -> None:
    """An error of the handler releases the lease."""
    handler = Handler()
    async with gateway(app=handler.app) as gate:
        assert (await gate.request("GET", "/fails")).status == 500
        await gate.idle()
