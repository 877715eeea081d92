"""Requests written byte by byte to a real gateway, and what its provider was sent for them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI

from fastapi_aibridge import AIBridge, MemoryRecorder
from tests.gateway.gateway import settings_for
from tests.gateway.server import served

LIMIT = 5.0
COOKIE = b"Set-Cookie: upstream=1; Path=/\r\nSet-Cookie2: old=1\r\n"


@dataclass
class House:
    port: int
    upstream_port: int
    sent: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Head and body of each request that went upstream."""
    answer: bytes = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + COOKIE + b"Content-Length: 2\r\n\r\n{}"

    async def say(self, data: bytes) -> bytes:
        """All that comes for these bytes, until the gateway closes the connection or has said no more for a while."""
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
    """Of all the answers in it."""
    return [int(line.split(b" ")[1]) for line in said.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]


@asynccontextmanager
async def house(principal: Callable[..., Any] | None = None, **values: Any) -> AsyncIterator[House]:
    one = House(0, 0)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
                body = await reader.readexactly(int(fields.get(b"content-length", b"0")))
                one.sent.append((head, body))
                writer.write(one.answer)
        writer.close()

    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(await asyncio.start_server(accept, "127.0.0.1", 0, limit=2**20))
        one.upstream_port = upstream.sockets[0].getsockname()[1]
        settings = settings_for(f"http://127.0.0.1:{one.upstream_port}", **values)
        app = FastAPI()
        app.include_router(AIBridge(settings, principal=principal, recorder=MemoryRecorder()).router, prefix="/ai")
        one.port = (await stack.enter_async_context(served(app))).port
        yield one
