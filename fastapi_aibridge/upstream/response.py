"""An upstream's response: its head, its body, and the gateway's notes on it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Protocol

from .failures import Failure
from .message import RawHeaders

AHEAD = 4 * 2**20
"""Bytes of a non-streaming response that are awaited before its relay begins."""

HIGH_WATER = 256 * 1024
"""Bytes of a body that wait for the reader; beyond that the rest is left in the socket."""

_FIRST_FIELD = 16
"""Bytes of a body that show whether it begins as an event stream, a byte-order mark and blank lines included."""
_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")


def _is_of_events(start: bytes) -> bool:
    return start.removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n").startswith(_FIELDS)


class ResponseHeaders(Mapping[str, str]):
    """Headers by name in lower case; of several with one name, the first."""

    __slots__ = ("_fields",)

    def __init__(self, raw: list[tuple[bytes, bytes]]) -> None:
        self._fields = dict(raw) if len(raw) < 2 else dict(reversed(raw))

    def __getitem__(self, name: str) -> str:
        return self._fields[name.encode()].decode("latin-1")

    def raw(self, name: bytes) -> bytes | None:
        return self._fields.get(name)

    def __iter__(self) -> Iterator[str]:
        return (name.decode("latin-1") for name in self._fields)

    def __len__(self) -> int:
        return len(self._fields)


class Source(Protocol):
    """The connection of a response, as far as the response uses it."""

    loop: asyncio.AbstractEventLoop

    def has_room(self) -> None:
        """Resume reading: the reader has taken the bytes that waited."""

    def hold(self) -> None:
        """Leave incoming bytes in the socket."""

    def go_on(self) -> None: ...

    def close(self) -> None: ...


class UpstreamResponse:
    """A response, filled by its connection and read by one reader."""

    __slots__ = (
        "_connection",
        "_failure",
        "_pieces",
        "_waiter",
        "complete",
        "headers",
        "heard",
        "limit",
        "notes",
        "problem",
        "raw_headers",
        "size",
        "status",
        "streams",
        "wanted",
    )

    headers: ResponseHeaders

    def __init__(self, connection: Source) -> None:
        self._connection: Source | None = connection  # until the response is complete, or has failed
        self._pieces: list[bytes] = []  # of the body, as received
        self._failure: Failure | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.status = 0
        """Status code; 0 until the head has arrived."""
        self.raw_headers: list[tuple[bytes, bytes]] = []
        """Headers as received, in order, but with names in lower case."""
        self.notes: RawHeaders = ()
        """Headers for the client, in lower case, that replace the upstream's of the same names."""
        self.problem = ""
        """Text that the record puts before the upstream's own words, where these would mislead."""
        self.streams = False
        """Whether the body is an event stream; known after `read_ahead`."""
        self.heard = False
        """Whether a byte of the response has arrived."""
        self.complete = False
        self.size = 0
        """Bytes of the body that wait for the reader."""
        self.limit = HIGH_WATER
        """Bytes that may wait before reading is paused."""
        self.wanted = 1
        """Waiting bytes at which the reader is woken."""

    # Called by the connection

    def begin(self, status: int, raw_headers: list[tuple[bytes, bytes]], headers: ResponseHeaders) -> None:
        self.status = status
        self.raw_headers = raw_headers
        self.headers = headers

    def feed(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self.size += len(piece)

    def end(self, failure: Failure | None = None) -> None:
        """Detach the connection: the response is complete, or has failed."""
        self._connection = None
        self.complete = failure is None
        self._failure = failure
        self.wake()

    def wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    # Called by the reader

    async def until_head(self) -> None:
        """Wait for the head. Raises `UpstreamUnreachable` or `UpstreamTimeout`."""
        while not self.status:
            if self._failure is not None:
                raise self._failure.error()
            await self._more()

    async def read_ahead(self, *, stream_asked: bool, hold: Callable[[int], None] | None = None) -> None:
        """Wait for the first bytes of a stream, or for the whole of another response, up to `AHEAD` bytes of it.

        Where a stream was asked for, a response of another content type is a stream, too, if it begins as one.

        `read_some` returns these bytes first; a request whose response breaks off here can still be repeated. Raises as
        `read_some` does, and what `hold` raises, which is called before more than `HIGH_WATER` bytes wait, with the
        bytes that may.
        """
        kind = self.headers.raw(b"content-type") or b""
        self.streams = kind[:17].lower() == b"text/event-stream" and 200 <= self.status < 300
        if stream_asked and not self.streams and 200 <= self.status < 300:
            # Some servers give their streams another content type, or none; every SDK reads them all the same.
            self.streams = _is_of_events(await self.peek(_FIRST_FIELD))
        if self._connection is not None:
            try:
                await self._fill(1 if self.streams else HIGH_WATER)
                while not self.streams and self._connection is not None and self.size < AHEAD:
                    wanted = self.size + HIGH_WATER
                    if hold is not None:
                        hold(wanted)
                    await self._fill(wanted)
            except BaseException:
                self.close()
                raise
        if self._failure is not None and not (self.streams and self._pieces):
            error = self._failure.error()
            error.upstream_status = self.status
            self.close()
            raise error

    async def peek(self, size: int) -> bytes:
        """Return at most `size` bytes from the start of the body, which `read_some` returns again; fewer at its end."""
        if self._connection is not None:
            await self._fill(size)
        return b"".join(self._pieces)[:size]

    async def read_some(self, patient: Callable[[], Awaitable[None]] | None = None) -> bytes:
        """Return the next raw bytes of the body, empty at its end. Raises `UpstreamUnreachable` or `UpstreamTimeout`.

        `patient` is awaited where `wake` was called before anything arrived; then the wait continues.
        """
        while not self._pieces:
            if self._failure is not None:
                raise self._failure.error()
            if self.complete:
                return b""
            await self._more()
            if patient is not None and not self._pieces and self._connection is not None:
                await patient()
        return self.leftovers()

    async def read_up_to(self, most: int, hold: Callable[[int], None] | None = None) -> bytes:
        """Read whole chunks of the body until they have `most` bytes, or to its end. Raises as `read_some` does, and
        what `hold` raises, which is called with the bytes so far once they are over `HIGH_WATER`.
        """
        pieces: list[bytes] = []
        size = 0
        while size < most and (piece := await self.read_some()):
            pieces.append(piece)
            size += len(piece)
            if hold is not None and size > HIGH_WATER:
                hold(size)
        return b"".join(pieces)

    def leftovers(self) -> bytes:
        """Return the bytes that have arrived and are unread, also those of a response that has failed."""
        pieces = self._pieces
        if not pieces:
            return b""
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self.size = 0
        if self._connection is not None:
            self._connection.has_room()
        return data

    @property
    def exhausted(self) -> bool:
        """Whether the whole body has arrived, and has been read."""
        return self.complete and not self._pieces

    async def hold(self, until: Awaitable[None]) -> None:
        """Wait, and leave the body's bytes in the socket meanwhile, where they use no memory of this process."""
        connection = self._connection
        if connection is None:  # the whole body has arrived
            await until
            return
        connection.hold()
        try:
            await until
        finally:
            if self._connection is connection:
                connection.go_on()

    def close(self) -> None:
        """Drop the response, and close the connection where more is to come on it."""
        connection = self._connection
        if connection is not None:
            connection.close()
        self._pieces.clear()

    async def _fill(self, size: int) -> None:
        """Wait until this many bytes have arrived, or all there are."""
        if size > 1:
            self.limit, self.wanted = max(size, HIGH_WATER), size
        try:
            while self._connection is not None and self.size < size:
                # Reading may be paused since before the limit was raised, and nothing else here resumes it.
                self._connection.has_room()
                await self._more()
        finally:
            self.limit, self.wanted = HIGH_WATER, 1

    def _more(self) -> asyncio.Future[None]:
        connection = self._connection
        assert connection is not None  # noqa: S101 - for the type checker: a response that has ended needs no more
        waiter = self._waiter = connection.loop.create_future()
        return waiter
