"""An upstream that sends prepared bytes, cut into given pieces, and keeps the requests it received. It knows the
framing of HTTP/1.1 and none of the formats above it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence

from anyio.from_thread import start_blocking_portal

from tests.loopback import LAST_CHUNK, Loopback, Request, chunk, read_request, response_head

from .exchange import Answer


class Replay(Loopback):
    """An upstream that answers all requests with the response given to `play`."""

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__(host=host, port=port)
        self.received: list[Request] = []
        self._answer: Answer | None = None
        self._cuts: Sequence[int] = ()

    def play(self, answer: Answer | None, cuts: Sequence[int] = ()) -> None:
        """Answer with this from now on, the body cut at these offsets; None hangs up. Forget the earlier requests."""
        self.received = []
        self._answer, self._cuts = answer, cuts

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await self._exchange(reader, writer):
            pass

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        received = await _receive(reader)
        if received.method == "GET":
            # A gateway may ask for the status of a background response at any later time.
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            return True
        self.received.append(received)
        answer, cuts = self._answer, self._cuts
        if answer is None:
            return False
        writer.write(_head(answer))
        await writer.drain()
        for piece in pieces(answer.body, cuts):
            await asyncio.sleep(0)  # so that the gateway reads each piece separately
            writer.write(chunk(piece) if answer.chunked else piece)
            await writer.drain()
        if answer.breaks:
            return False
        if answer.chunked:
            writer.write(LAST_CHUNK)
            await writer.drain()
        return True


def pieces(body: bytes, cuts: Sequence[int]) -> Iterator[bytes]:
    """Yield the body, cut at the offsets that lie inside it; no piece is empty."""
    start = 0
    for end in [*sorted({cut for cut in cuts if 0 < cut < len(body)}), len(body)]:
        if end > start:
            yield body[start:end]
        start = end


def _head(answer: Answer) -> bytes:
    length = ("Content-Length", str(len(answer.body) + answer.breaks))
    framing = ("Transfer-Encoding", "chunked") if answer.chunked else length
    return response_head(answer.status, [*answer.headers, framing], reason=answer.reason)


async def _receive(reader: asyncio.StreamReader) -> Request:
    request = await read_request(reader)
    if (request.header("transfer-encoding") or "").lower() != "chunked":
        return request
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readuntil(b"\r\n")
    return Request(request.head, body)


@contextlib.contextmanager
def replay_in_thread(*, host: str = "127.0.0.1", port: int = 0) -> Iterator[Replay]:
    """Run a `Replay` for synchronous code."""
    replay = Replay(host=host, port=port)
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(replay):
        yield replay
