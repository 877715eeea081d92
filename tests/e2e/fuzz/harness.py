"""A gateway with a real database behind a real socket, and an upstream that accepts whatever it is sent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI

from fastapi_aibridge import AIBridge
from tests.e2e.gateway.client import KEY
from tests.e2e.gateway.gateway import settings_for
from tests.e2e.gateway.server import served
from tests.loopback import LAST_CHUNK, Loopback, content_length

LIMIT = 30.0
"""Seconds within which a response must have come, or the connection been closed."""
MAX_BODY = 4 * 2**20


class Taking(Loopback):
    def __init__(self) -> None:
        super().__init__()
        self.heads: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            await reader.readexactly(content_length(head))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")


@dataclass(frozen=True, slots=True)
class GatewayHarness:
    port: int
    heads: list[bytes]
    """The heads of the requests that went upstream."""

    async def say(self, data: bytes, *, finish: bool = False) -> bytes:
        """Send bytes; return the response, as far as it comes before the end. `finish` half-closes our side."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            async with asyncio.timeout(LIMIT):
                with contextlib.suppress(OSError):
                    writer.write(data)
                    if finish:
                        writer.write_eof()
                    return await _answer(reader)
                return b""
        finally:
            writer.transport.abort()

    async def post(self, target: str, body: bytes, *headers: bytes) -> tuple[int, bytes]:
        """Send a request with correct framing; return the response's status and body."""
        fields = b"".join(b"%b\r\n" % header for header in headers)
        head = f"POST {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {len(body)}\r\n"
        for _ in range(5):
            # The server may refuse before it has read everything, and a reset may then overtake its response.
            if answer := await self.say(head.encode() + fields + b"\r\n" + body):
                break
        start, _, content = answer.partition(b"\r\n\r\n")
        return int(start.split(b" ")[1]), content

    async def alive(self) -> None:
        answer = await self.say(b"GET /ai/healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 ")


async def _answer(reader: asyncio.StreamReader) -> bytes:
    """Read one response, or as much of it as comes."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    try:
        if b"\r\ntransfer-encoding: chunked\r\n" in head.lower():
            return head + await reader.readuntil(LAST_CHUNK)
        return head + await reader.readexactly(content_length(head))
    except asyncio.IncompleteReadError as error:
        return head + error.partial


@asynccontextmanager
async def harness(directory: Path) -> AsyncIterator[GatewayHarness]:
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(Taking())
        recorder = {"url": f"sqlite+aiosqlite:///{directory / 'records.db'}"}
        aibridge = AIBridge(settings_for(upstream.url, recorder=recorder, max_body_size=MAX_BODY))
        app = FastAPI()
        app.include_router(aibridge.router, prefix="/ai")
        server = await stack.enter_async_context(served(app))
        yield GatewayHarness(server.port, upstream.heads)
