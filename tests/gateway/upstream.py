"""An upstream that the test plays itself, byte by byte: it reads a request, then waits to be told what to send."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from types import TracebackType
from typing import Self

LIMIT = 10.0
"""Seconds after which a test that waits for something gives up."""

Headers = Iterable[tuple[str, str]]


class Call:
    """One request that arrived, and the connection to answer it on."""

    def __init__(self, method: str, path: str, headers: list[tuple[str, str]], body: bytes, sink: _Connection) -> None:
        self.method = method
        self.path = path
        """As it came, with the query."""
        self.headers = headers
        self.body = body
        self.gone = asyncio.Event()
        """Set once the gateway has closed the connection."""
        self._connection = sink

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)

    @property
    def header_names(self) -> set[str]:
        return {name.lower() for name, _ in self.headers}

    async def write(self, data: bytes) -> None:
        """Send exactly these bytes; waits while the gateway does not read."""
        self._connection.writer.write(data)
        await self._connection.writer.drain()

    async def head(self, status: int = 200, headers: Headers = (), *, chunked: bool = False) -> None:
        framing = [("Transfer-Encoding", "chunked")] if chunked else []
        lines = [f"HTTP/1.1 {status} Whatever", *(f"{name}: {value}" for name, value in [*headers, *framing])]
        await self.write("\r\n".join([*lines, "", ""]).encode("latin-1"))

    async def chunk(self, data: bytes) -> None:
        await self.write(b"%x\r\n%b\r\n" % (len(data), data))

    async def end(self) -> None:
        """The last chunk."""
        await self.write(b"0\r\n\r\n")

    async def stream(self, *pieces: bytes, headers: Headers = ()) -> None:
        """The head of an event stream and its first pieces."""
        await self.head(200, [("Content-Type", "text/event-stream"), *headers], chunked=True)
        for piece in pieces:
            await self.chunk(piece)

    async def answer(
        self, body: bytes, *, status: int = 200, headers: Headers = (("Content-Type", "application/json"),)
    ) -> None:
        await self.head(status, [*headers, ("Content-Length", str(len(body)))])
        await self.write(body)

    def close(self) -> None:
        self._connection.writer.close()

    def reset(self) -> None:
        self._connection.writer.transport.abort()

    async def until_gone(self) -> None:
        await asyncio.wait_for(self.gone.wait(), LIMIT)


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def serve(self, calls: asyncio.Queue[Call]) -> None:
        ahead = b""
        while True:
            head = (ahead + await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            start, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
            method, path, _ = start.split(" ")
            headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
            fields = {name.lower(): value for name, value in headers}
            body = await self.reader.readexactly(int(fields.get("content-length", "0")))
            call = Call(method, path, headers, body, self)
            calls.put_nowait(call)
            try:
                ahead = await self.reader.read(1)
            except ConnectionError:
                ahead = b""
            if not ahead:
                call.gone.set()
                return


class Upstream:
    """Listens on a loopback port of the running event loop."""

    def __init__(self) -> None:
        self.port = 0
        self._calls: asyncio.Queue[Call] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def call(self) -> Call:
        """The next request that arrives, or has arrived and was not asked for yet."""
        return await asyncio.wait_for(self._calls.get(), LIMIT)

    @property
    def untouched(self) -> bool:
        """Whether no request has arrived beyond those that were asked for."""
        return self._calls.empty()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=1 << 20)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await _Connection(reader, writer).serve(self._calls)
        finally:
            self._tasks.discard(task)
            writer.transport.abort()
