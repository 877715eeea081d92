"""An upstream that the test controls byte by byte: it reads a request, then sends only as it is told."""

from __future__ import annotations

import asyncio

from tests.loopback import LAST_CHUNK, Headers, Loopback, Request, chunk, read_request, response_head

LIMIT = 60.0
"""Seconds after which a waiting test gives up."""


class Call:
    """A request that has arrived, with the connection for its response."""

    def __init__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        self.method = request.method
        self.path = request.path
        self.headers = request.headers
        self.header = request.header
        self.body = request.body
        self.gone = asyncio.Event()
        """Set once the gateway has closed the connection."""
        self._writer = writer

    @property
    def header_names(self) -> set[str]:
        return {name.lower() for name, _ in self.headers}

    async def write(self, data: bytes) -> None:
        """Send exactly these bytes; waits while the gateway does not read."""
        self._writer.write(data)
        await self._writer.drain()

    async def head(self, status: int = 200, headers: Headers = (), *, chunked: bool = False) -> None:
        framing = [("Transfer-Encoding", "chunked")] if chunked else []
        await self.write(response_head(status, [*headers, *framing]))

    async def chunk(self, data: bytes) -> None:
        await self.write(chunk(data))

    async def end(self) -> None:
        """Send the last chunk."""
        await self.write(LAST_CHUNK)

    async def stream(self, *pieces: bytes, headers: Headers = ()) -> None:
        """Send the head of an event stream and its first pieces."""
        await self.head(200, [("Content-Type", "text/event-stream"), *headers], chunked=True)
        for piece in pieces:
            await self.chunk(piece)

    async def answer(
        self, body: bytes, *, status: int = 200, headers: Headers = (("Content-Type", "application/json"),)
    ) -> None:
        await self.head(status, [*headers, ("Content-Length", str(len(body)))])
        await self.write(body)

    def close(self) -> None:
        self._writer.close()

    def reset(self) -> None:
        self._writer.transport.abort()

    async def until_gone(self) -> None:
        await asyncio.wait_for(self.gone.wait(), LIMIT)


class Upstream(Loopback):
    def __init__(self) -> None:
        super().__init__()
        self._calls: asyncio.Queue[Call] = asyncio.Queue()

    async def call(self) -> Call:
        """Return the next request that the test has not taken yet, once it has arrived."""
        return await asyncio.wait_for(self._calls.get(), LIMIT)

    @property
    def untouched(self) -> bool:
        """Whether the test has taken all requests that have arrived."""
        return self._calls.empty()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ahead = b""
        while True:
            call = Call(await read_request(reader, ahead), writer)
            self._calls.put_nowait(call)
            try:
                ahead = await reader.read(1)
            except ConnectionError:
                ahead = b""
            if not ahead:
                call.gone.set()
                return
