"""Requests written byte by byte to a real gateway, and the requests that its provider received for them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI

from fastapi_aibridge import AIBridge, MemoryRecorder
from tests.e2e.gateway.gateway import settings_for
from tests.e2e.gateway.server import served
from tests.loopback import Loopback, Request, read_request

LIMIT = 5.0
COOKIE = b"Set-Cookie: upstream=1; Path=/\r\nSet-Cookie2: old=1\r\n"


class Answering(Loopback):
    """A provider that answers each request with `answer`."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[Request] = []
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + COOKIE + b"Content-Length: 2\r\n\r\n{}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            self.sent.append(await read_request(reader))
            writer.write(self.answer)


class GatewayHarness:
    def __init__(self, port: int, upstream: Answering) -> None:
        self.port = port
        self.upstream = upstream

    @property
    def sent(self) -> list[Request]:
        """The requests that went upstream."""
        return self.upstream.sent

    async def say(self, data: bytes) -> bytes:
        """Send bytes; return all that comes until the gateway closes the connection or pauses for a while."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        said = b""
        try:
            writer.write(data)
            async with asyncio.timeout(LIMIT):
                while piece := await self._piece(reader, patient=not said):
                    said += piece
        finally:
            writer.transport.abort()
        return said

    async def _piece(self, reader: asyncio.StreamReader, *, patient: bool) -> bytes:
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(LIMIT if patient else 0.1):
                return await reader.read(65536)
        return b""


def statuses(said: bytes) -> list[int]:
    """Return the statuses of all responses in these bytes."""
    return [int(line.split(b" ")[1]) for line in said.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]


@asynccontextmanager
async def harness(principal: Callable[..., Any] | None = None, **values: Any) -> AsyncIterator[GatewayHarness]:
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(Answering())
        settings = settings_for(upstream.url, **values)
        app = FastAPI()
        app.include_router(AIBridge(settings, principal=principal, recorder=MemoryRecorder()).router, prefix="/ai")
        server = await stack.enter_async_context(served(app))
        yield GatewayHarness(server.port, upstream)
