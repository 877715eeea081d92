"""A TCP proxy between gateway and provider that has the provider's answer in its hands and may do anything to it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable

from tests.loopback import Loopback, read_request

from .model import read_answer

Fault = Callable[["Link"], Awaitable[None]]
"""What is done in the place of handing the answer on. A link that it leaves open is used for the next request."""


class Link:
    """One connection of the gateway, and the provider's answer to the request that came on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.head = b""
        """The answer's head, with the empty line."""
        self.body = b""
        """The answer's body, with the sizes of its chunks."""
        self.open = True

    @property
    def streams(self) -> bool:
        return b"text/event-stream" in self.head

    @property
    def middle(self) -> int:
        """Where the body is to be cut: in a stream's second event, or half way."""
        if self.streams:
            return self.body.index(b"\n\n") + 30
        return len(self.body) // 2

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def receive(self) -> bytes:
        """Some of what comes, as it comes."""
        return await self._reader.read(65536)

    async def arrived(self) -> None:
        """Give what has been sent the time to be read: a reset would overtake it."""
        await asyncio.sleep(0.02)

    def reset(self) -> None:
        """RST."""
        sock: socket.socket = self._writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()
        self.open = False

    def close(self) -> None:
        self._writer.close()
        self.open = False

    async def half_close(self) -> None:
        """FIN, and the other direction stays open until the gateway has closed it, which it may have done before."""
        with contextlib.suppress(OSError):
            self._writer.write_eof()
        await self.silence()

    async def silence(self) -> None:
        """Nothing, until the gateway leaves."""
        with contextlib.suppress(ConnectionError):
            await self._reader.read()
        self.close()


async def no_fault(link: Link) -> None:
    """Hand the answer on as it is."""
    await link.send(link.head + link.body)


class FaultProxy(Loopback):
    """`choose` says what is done to each answer, and `greet` what is done to a connection before anything is read from
    it.
    """

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
