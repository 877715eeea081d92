"""What the upstreams of the tests are made of: a server on a loopback port, and the framing of HTTP/1.1 by hand."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
from collections.abc import Iterable
from types import TracebackType
from typing import NamedTuple, Self

Headers = Iterable[tuple[str, str]]

LAST_CHUNK = b"0\r\n\r\n"


class Loopback:
    """Listens in the running event loop while the block runs, with `tls` where that is given.

    What is done with a connection is up to `serve`.
    """

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.host = host
        self.port = port
        """0 is a free one, which stands here from the start on."""
        self._tls = tls
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection, which is closed at the end of this. That the client leaves may be raised."""
        raise NotImplementedError

    async def hang_up(self) -> None:
        """Close every connection, idle ones too."""
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._accept, self.host, self.port, limit=1 << 24, backlog=1024, ssl=self._tls
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        await self.hang_up()
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            with contextlib.suppress(asyncio.CancelledError):
                with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                    await self.serve(reader, writer)
                with contextlib.suppress(OSError):
                    writer.close()
                    await writer.wait_closed()
        finally:
            self._connections.discard(task)
            with contextlib.suppress(AttributeError):  # from a transport that still had to send when it was closed
                writer.transport.abort()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Request(NamedTuple):
    head: bytes
    """As it came, with the empty line."""
    body: bytes

    @property
    def method(self) -> str:
        return self._lines[0].split(" ")[0]

    @property
    def path(self) -> str:
        """As it came, with the query."""
        return self._lines[0].split(" ")[1]

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        fields = (line.partition(":") for line in self._lines[1:])
        return tuple((name, value.strip()) for name, _, value in fields)

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)

    @property
    def _lines(self) -> list[str]:
        return self.head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")


async def read_request(reader: asyncio.StreamReader, ahead: bytes = b"") -> Request:
    """The next request; `ahead` is what has been read of it. Raises `IncompleteReadError` where none comes."""
    head = ahead + await reader.readuntil(b"\r\n\r\n")
    return Request(head, await reader.readexactly(content_length(head)))


def content_length(head: bytes) -> int:
    """What the head of a request or an answer says; 0 where it says nothing."""
    found = re.search(rb"(?i)\r\ncontent-length:\s*(\d+)", head)
    return int(found[1]) if found else 0


def response_head(status: int = 200, headers: Headers = (), *, reason: str = "Whatever") -> bytes:
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
