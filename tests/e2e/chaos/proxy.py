"""A TCP proxy between gateway and provider that can alter, delay or break each response of the provider."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable

from tests.loopback import Loopback, read_request
from tests.waiting import turns

from .model import read_answer

Fault = Callable[["Link"], Awaitable[None]]
"""A function that runs instead of passing a response on. A link that it leaves open serves the next request."""


class Link:
    """A connection of the gateway, with the provider's response to its latest request."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.head = b""
        """The response's head, including the empty line."""
        self.body = b""
        """The response's body, including the chunk sizes."""
        self.open = True

    @property
    def streams(self) -> bool:
        return b"text/event-stream" in self.head

    @property
    def middle(self) -> int:
        """The position at which to cut the body: within a stream's second event, otherwise half way."""
        if self.streams:
            return self.body.index(b"\n\n") + 30
        return len(self.body) // 2

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def receive(self) -> bytes:
        """Return some of the bytes that the gateway sends, as they arrive."""
        return await self._reader.read(65536)

    async def arrived(self) -> None:
        """Give the gateway time to read the sent bytes, which a reset would overtake."""
        await turns()

    def reset(self) -> None:
        """Close the connection with RST."""
        sock: socket.socket = self._writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()
        self.open = False

    def close(self) -> None:
        self._writer.close()
        self.open = False

    async def half_close(self) -> None:
        """Send FIN, then wait until the gateway closes the other direction, unless it already has."""
        with contextlib.suppress(OSError):
            self._writer.write_eof()
        await self.silence()

    async def silence(self) -> None:
        """Send nothing until the gateway closes the connection."""
        with contextlib.suppress(ConnectionError):
            await self._reader.read()
        self.close()


async def no_fault(link: Link) -> None:
    """Pass the response on unchanged."""
    await link.send(link.head + link.body)


class FaultProxy(Loopback):
    """A proxy whose `choose` picks the fault for each response, and whose `greet` is applied to a new connection."""

    def __init__(
        self, port: int, choose: Callable[[], Fault] = lambda: no_fault, *, tls: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(tls=tls)
        self.choose = choose
        self.greet: Fault | None = None
        self.requests = 0
        self._upstream = port

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link(reader, writer)
        if self.greet is not None:
            await self.greet(link)
        if not link.open:
            return
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        try:
            while link.open:
                request = await read_request(reader)
                self.requests += 1
                fault = self.choose()
                up_writer.write(request.head + request.body)
                await up_writer.drain()
                link.head, link.body = await read_answer(up_reader)
                await fault(link)
        finally:
            up_writer.transport.abort()
