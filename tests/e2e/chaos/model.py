"""The provider behind the fault proxy, which gives every request the same good response at once."""

from __future__ import annotations

import asyncio

from tests.e2e.gateway.bodies import WIRES, Wire
from tests.loopback import LAST_CHUNK, Loopback, chunk, content_length, read_request, response_head


def head(status: int = 200, **fields: str) -> bytes:
    """Return a response's head; underscores in names become hyphens."""
    return response_head(status, [(name.replace("_", "-"), value) for name, value in fields.items()])


def answer(wire: Wire, *, stream: bool) -> bytes:
    """Return the whole response; a stream has one chunk for each event."""
    if stream:
        start = head(content_type="text/event-stream", transfer_encoding="chunked")
        return start + b"".join(map(chunk, wire.events)) + LAST_CHUNK
    return head(content_type="application/json", content_length=str(len(wire.blocking))) + wire.blocking


class Model(Loopback):
    def __init__(self) -> None:
        super().__init__()
        self._answers = {(wire.path, stream): answer(wire, stream=stream) for wire in WIRES for stream in (False, True)}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await read_request(reader)
            writer.write(self._answers[request.path, b'"stream": true' in request.body])
            await writer.drain()


async def read_answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Read one of the model's responses; return its head and body as raw bytes."""
    start = await reader.readuntil(b"\r\n\r\n")
    if b"chunked" in start:
        return start, await reader.readuntil(LAST_CHUNK)
    return start, await reader.readexactly(content_length(start))
