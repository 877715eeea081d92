"""The building blocks of test upstreams: a server on a loopback port, and HTTP/1.1 framing by hand."""

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
    """A server that listens in the running event loop while the block runs, with TLS if `tls` is given.

    Subclasses say in `serve` how a connection is handled.
    """

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.host = host
        self.port = port
        """0 takes a free port, whose number is here once the block is entered."""
        self._tls = tls
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def open_connections(self) -> int:
        return len(self._connections)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection, which is closed afterwards. An error raised because the client left is ignored."""
        raise NotImplementedError

    async def hang_up(self) -> None:
        """Close every connection, including idle ones."""
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
            with contextlib.suppress(AttributeError):  # raised by a transport that was closed with data still to send
                writer.transport.abort()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Request(NamedTuple):
    head: bytes
    """The bytes as received, with the empty line at the end."""
    body: bytes

    @property
    def method(self) -> str:
        return self._lines[0].split(" ")[0]

    @property
    def path(self) -> str:
        """The request target as received, with the query."""
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
    """Return the next request; `ahead` is the part already read. Raises `IncompleteReadError` if there is none."""
    head = ahead + await reader.readuntil(b"\r\n\r\n")
    return Request(head, await reader.readexactly(content_length(head)))


def content_length(head: bytes) -> int:
    """Return the `Content-Length` of a request or response head, 0 if it has none."""
    found = re.search(rb"(?i)\r\ncontent-length:\s*(\d+)", head)
    return int(found[1]) if found else 0


def response_head(status: int = 200, headers: Headers = (), *, reason: str = "Whatever") -> bytes:
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
