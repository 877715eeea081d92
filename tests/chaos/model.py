"""The provider behind the fault proxy: it answers every request at once, well, and always the same."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self

from tests.gateway.bodies import WIRES, Wire


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def head(status: int = 200, **fields: str) -> bytes:
    """A response's head; underscores in names stand for hyphens."""
    lines = [f"HTTP/1.1 {status} Whatever", *(f"{name.replace('_', '-')}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def answer(wire: Wire, *, stream: bool) -> bytes:
    """The whole response: of a stream one chunk for each event."""
    if stream:
        start = head(content_type="text/event-stream", transfer_encoding="chunked")
        return start + b"".join(map(chunk, wire.events)) + b"0\r\n\r\n"
    return head(content_type="application/json", content_length=str(len(wire.blocking))) + wire.blocking


class Model:
    """Listens on a loopback port of the running event loop."""

    def __init__(self) -> None:
        self.port = 0
        self._answers = {
            (wire.path.encode(), stream): answer(wire, stream=stream) for wire in WIRES for stream in (False, True)
        }
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=1024)
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

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while True:
                    request = await read_request(reader)
                    path = request.split(b" ", 2)[1]
                    writer.write(self._answers[path, b'"stream": true' in request])
                    await writer.drain()
        finally:
            self._tasks.discard(task)
            writer.transport.abort()


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """A whole request, as it came. Raises `IncompleteReadError` at the connection's end."""
    start = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in start.split(b"\r\n")[1:] if b": " in line)
    return start + await reader.readexactly(int(fields.get(b"content-length", b"0")))


async def read_answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """The head and the body of one of the model's responses, as they came."""
    start = await reader.readuntil(b"\r\n\r\n")
    if b"chunked" in start:
        return start, await reader.readuntil(b"0\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in start.split(b"\r\n")[1:] if b": " in line)
    return start, await reader.readexactly(int(fields[b"content-length"]))
