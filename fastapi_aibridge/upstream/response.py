"""An upstream's answer: how its body is read, and what the gateway has to say of how it was got."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Protocol

from .failures import Failure
from .message import RawHeaders

AHEAD = 4 * 2**20
"""Bytes of an answer that is no stream which are waited for before its relay begins."""

HIGH_WATER = 256 * 1024
"""Bytes of a body that wait for their reader; beyond that the rest is left in the socket."""

_FIRST_FIELD = 16
"""Bytes of a body that tell whether it begins as a stream of events, a byte-order mark and blank lines included."""
_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")


def _is_of_events(start: bytes) -> bool:
    return start.removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n").startswith(_FIELDS)


class ResponseHeaders(Mapping[str, str]):
    """Headers by name in lower case; of several with one name the first."""

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
    """What a response needs of the connection that it comes on."""

    loop: asyncio.AbstractEventLoop

    def has_room(self) -> None:
        """The reader has taken what waited."""

    def hold(self) -> None:
        """Leave what comes in the socket."""

    def go_on(self) -> None: ...

    def close(self) -> None: ...


class UpstreamResponse:
    """Filled by its connection, and read by one reader."""

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
        self._connection: Source | None = connection  # until the answer has come whole, or failed
        self._pieces: list[bytes] = []  # of the body, as they came
        self._failure: Failure | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.status = 0
        """0 until the head has come."""
        self.raw_headers: list[tuple[bytes, bytes]] = []
        """As they came, in order, but for names in lower case."""
        self.notes: RawHeaders = ()
        """Headers for the client, in lower case, that take the place of the upstream's of the same names."""
        self.problem = ""
        """What the record says before the upstream's own words, where these would mislead."""
        self.streams = False
        """Whether the body is a stream of events; known once it has been read ahead."""
        self.heard = False
        """Whether a byte of the answer has come."""
        self.complete = False
        self.size = 0
        """Bytes of the body that wait for their reader."""
        self.limit = HIGH_WATER
        """How many may wait."""
        self.wanted = 1
        """With how many the reader is called."""

    # The connection's side

    def begin(self, status: int, raw_headers: list[tuple[bytes, bytes]], headers: ResponseHeaders) -> None:
        self.status = status
        self.raw_headers = raw_headers
        self.headers = headers

    def feed(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self.size += len(piece)

    def end(self, failure: Failure | None = None) -> None:
        """The connection has nothing to do with the answer any more."""
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

    # The reader's side

    async def until_head(self) -> None:
        """Raises `UpstreamUnreachable` or `UpstreamTimeout`."""
        while not self.status:
            if self._failure is not None:
                raise self._failure.error()
            await self._more()

    async def read_ahead(self, *, stream_asked: bool) -> None:
        """Wait for the first bytes of a stream, or for the whole of another answer, up to `AHEAD` bytes of it.

        Where a stream was asked for, an answer by another name is one if it begins as one.

        `read_some` begins with these bytes; what breaks off here can still be asked for again. Raises as it does.
        """
        kind = self.headers.raw(b"content-type") or b""
        self.streams = kind[:17].lower() == b"text/event-stream" and 200 <= self.status < 300
        if stream_asked and not self.streams and 200 <= self.status < 300:
            # Some servers call their streams by another name, or by none; every SDK reads them all the same.
            self.streams = _is_of_events(await self.peek(_FIRST_FIELD))
        if self._connection is not None:
            try:
                await self._fill(1 if self.streams else AHEAD)
            except BaseException:
                self.close()
                raise
        if self._failure is not None and not (self.streams and self._pieces):
            error = self._failure.error()
            error.upstream_status = self.status
            self.close()
            raise error

    async def peek(self, size: int) -> bytes:
        """The first bytes of the body, at most so many; `read_some` gives them as well. Fewer where it breaks off."""
        if self._connection is not None:
            await self._fill(size)
        return b"".join(self._pieces)[:size]

    async def read_some(self, patient: Callable[[], Awaitable[None]] | None = None) -> bytes:
        """The next raw bytes of the body, empty at its end. Raises `UpstreamUnreachable` or `UpstreamTimeout`.

        `patient` is awaited where `wake` has been called before anything came; then the wait goes on.
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

    def leftovers(self) -> bytes:
        """What has come and has not been read; also of an answer that has failed."""
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
        """Whether all of the body has come, and has been read."""
        return self.complete and not self._pieces

    async def hold(self, until: Awaitable[None]) -> None:
        """Wait, and leave what comes of the body in the socket meanwhile, at no cost but the sender's."""
        connection = self._connection
        if connection is None:  # all of the body has come
            await until
            return
        connection.hold()
        try:
            await until
        finally:
            if self._connection is connection:
                connection.go_on()

    def release(self) -> None:
        """Let go of an answer that nobody will read; the connection is kept where it has been read to the end."""
        self.close()

    def close(self) -> None:
        """Let go of the answer, and of the connection where there is more to come on it."""
        connection = self._connection
        if connection is not None:
            connection.close()
        self._pieces.clear()

    async def _fill(self, size: int) -> None:
        """Until so many bytes wait, or all there are."""
        if size > 1:
            self.limit, self.wanted = max(size, HIGH_WATER), size
        try:
            while self._connection is not None and self.size < size:
                # It may have stopped before the limit was raised, and nothing is taken here that would start it again.
                self._connection.has_room()
                await self._more()
        finally:
            self.limit, self.wanted = HIGH_WATER, 1

    def _more(self) -> asyncio.Future[None]:
        connection = self._connection
        assert connection is not None  # noqa: S101 - for the type checker: an answer that has ended needs no more
        waiter = self._waiter = connection.loop.create_future()
        return waiter
