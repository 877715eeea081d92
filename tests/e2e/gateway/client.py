"""A low-level HTTP client that sends the bytes it is given and reads responses only when it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

LIMIT = 120.0
KEY = "k-alice"


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes
    whole: bool = True
    """False if the connection ended before the body did."""

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)


class Client:
    """One connection to the gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.received = asyncio.Event()
        """Set once a piece of a chunked body has arrived."""

    async def send(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None, key: str | None = KEY
    ) -> None:
        fields = {"Host": "gateway", **({"Authorization": f"Bearer {key}"} if key else {})}
        if body:
            fields |= {"Content-Length": str(len(body)), "Content-Type": "application/json"}
        fields |= headers or {}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        self.writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        await self.writer.drain()

    async def head(self) -> tuple[int, list[tuple[str, str]]]:
        raw = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), LIMIT)).decode("latin-1")
        start, *lines = raw.removesuffix("\r\n\r\n").split("\r\n")
        headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        return int(start.split(" ")[1]), headers

    async def piece(self) -> bytes:
        """Read the next chunk of a chunked body, empty at its end. Raises `IncompleteReadError` if it breaks off."""
        async with asyncio.timeout(LIMIT):
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            piece = (await self.reader.readexactly(size + 2))[:-2]
            self.received.set()
            return piece

    async def answer(self, *, to_head: bool = False) -> Answer:
        status, headers = await self.head()
        fields = dict(headers)
        if to_head or status in (204, 304):
            return Answer(status, headers, b"")
        body = b""
        try:
            if fields.get("transfer-encoding") == "chunked":
                while piece := await self.piece():
                    body += piece
            else:
                body = await asyncio.wait_for(self.reader.readexactly(int(fields.get("content-length", "0"))), LIMIT)
        except asyncio.IncompleteReadError as error:
            return Answer(status, headers, body + error.partial, whole=False)
        return Answer(status, headers, body)

    def leave(self) -> None:
        """Close the connection at once, whatever is still to come."""
        self.writer.transport.abort()


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()


async def request(
    port: int,
    method: str,
    path: str,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    key: str | None = KEY,
) -> Answer:
    """Send one request on a connection of its own; return the whole response."""
    async with connected(port) as client:
        await client.send(method, path, body, headers, key)
        return await client.answer(to_head=method == "HEAD")
