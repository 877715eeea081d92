"""An upstream that answers with the very bytes it was given, cut into pieces where it was told, and keeps what it
received. It knows HTTP/1.1 framing and nothing of the formats above it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

from .exchange import Answer, Headers

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    method: str
    path: str
    """As it came, with the query."""
    headers: Headers
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)


class Replay:
    """Listens as long as its context lasts. `play` says what the next requests are answered with."""

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0, pause: float = 0.0) -> None:
        self.host = host
        self.port = port
        self.pause = pause
        """Seconds between two pieces."""
        self.received: list[Received] = []
        self._answer: Answer | None = None
        self._cuts: Sequence[int] = ()
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def play(self, answer: Answer | None, cuts: Sequence[int] = ()) -> None:
        """Answer with this from now on, the body cut at these offsets; None hangs up. Forgets what was received."""
        self.received = []
        self._answer, self._cuts = answer, cuts

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, self.host, self.port, limit=1 << 20)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while await self._exchange(reader, writer):
                    pass
        finally:
            self._connections.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        received = await _receive(reader)
        self.received.append(received)
        answer, cuts = self._answer, self._cuts
        if answer is None:
            return False
        writer.write(_head(answer))
        await writer.drain()
        for piece in pieces(answer.body, cuts):
            await asyncio.sleep(self.pause)
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if answer.chunked else piece)
            await writer.drain()
        if answer.breaks:
            return False
        if answer.chunked:
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        return True


def pieces(body: bytes, cuts: Sequence[int]) -> Iterator[bytes]:
    """The body, cut at the offsets that lie inside it; no piece is empty."""
    start = 0
    for end in [*sorted({cut for cut in cuts if 0 < cut < len(body)}), len(body)]:
        if end > start:
            yield body[start:end]
        start = end


def _head(answer: Answer) -> bytes:
    lines = [f"HTTP/1.1 {answer.status} {answer.reason}", *(f"{name}: {value}" for name, value in answer.headers)]
    if answer.chunked:
        lines.append("Transfer-Encoding: chunked")
    else:
        lines.append(f"Content-Length: {len(answer.body) + answer.breaks}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


async def _receive(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    start, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
    method, path, _ = start.split(" ")
    headers = tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in lines))
    fields = {name.lower(): value for name, value in headers}
    body = b""
    if fields.get("transfer-encoding", "").lower() == "chunked":
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readuntil(b"\r\n")
    else:
        body = await reader.readexactly(int(fields.get("content-length", "0")))
    return Received(method=method, path=path, headers=headers, body=body)


class LoopThread:
    """An event loop in a thread of its own, so that a runner and tests can be synchronous."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="replay", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@contextlib.contextmanager
def replay_in_thread(*, host: str = "127.0.0.1", port: int = 0, pause: float = 0.0) -> Iterator[Replay]:
    """A `Replay` for synchronous code."""
    with LoopThread() as thread:
        replay = Replay(host=host, port=port, pause=pause)
        thread.run(replay.__aenter__())
        try:
            yield replay
        finally:
            thread.run(replay.__aexit__(None, None, None))
