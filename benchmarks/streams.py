"""Streams that are timed event by event, by a client that is cheap enough not to distort the figures."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

from . import load

EVENTS, PACE = 50, 0.02
"""Text events of a stream, and the seconds between two of them."""
SLOW = "/p20n50"
"""The upstream's prefix for such streams."""
LIMIT = 120.0


@dataclass(slots=True)
class Watched:
    """The times of one stream, in seconds."""

    began: float
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    """Arrivals: a time, and the number of events that came together then."""
    status: int = 0
    ended: float | None = None

    @property
    def whole(self) -> bool:
        return self.status == 200 and self.ended is not None

    @property
    def first(self) -> float:
        """Seconds from the request to the first event."""
        return self.arrivals[0][0] - self.began

    def lateness(self) -> list[float]:
        """Seconds that each text event came after its ideal time, at which it would have come without any delay."""
        late: list[float] = []
        for at, number in self.arrivals:
            for _ in range(number):
                late.append(at - self.began - len(late) * PACE)
        return late[:EVENTS]


class Watcher(asyncio.Protocol):
    """A client's connection, which requests one stream after the other."""

    def __init__(self, url: str, key: str = load.CLIENT_KEY) -> None:
        self._place = urlsplit(url)
        body = load.body(stream=True).encode()
        head = f"POST {self._place.path} HTTP/1.1\r\nHost: {self._place.netloc}\r\nContent-Type: application/json\r\n"
        head += f"Authorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n\r\n"
        self._request = head.encode() + body
        self._transport: asyncio.WriteTransport | None = None
        self.watched = Watched(0)
        self._over: asyncio.Future[None] | None = None
        self._rest = b""

    async def watch(self) -> Watched:
        """Request one stream and return it when it has ended. Its time includes the connecting, if that is needed."""
        loop = asyncio.get_running_loop()
        self.watched = watched = Watched(loop.time())
        self._over = loop.create_future()
        self._rest = b""
        if self._transport is None:
            await loop.create_connection(lambda: self, str(self._place.hostname), self._place.port or 80)
        assert self._transport is not None
        self._transport.write(self._request)
        async with asyncio.timeout(LIMIT):
            await self._over
        return watched

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        watched = self.watched
        now = asyncio.get_running_loop().time()
        if not watched.status:
            watched.status = int(data[9:12])
        # Only an event ends in two line feeds; the end of a chunk does not.
        number = data.count(b"\n\n") + (self._rest.endswith(b"\n") and data.startswith(b"\n"))
        self._rest = (self._rest + data[-5:])[-5:]
        if number:
            watched.arrivals.append((now, number))
        if watched.status != 200:
            self.close()
        elif self._rest == b"0\r\n\r\n":
            watched.ended = now
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._transport = None
        self._end()

    def _end(self) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_result(None)


async def watch(url: str, key: str = load.CLIENT_KEY) -> Watched:
    """Time one stream on a connection of its own."""
    watcher = Watcher(url, key)
    try:
        return await watcher.watch()
    finally:
        watcher.close()


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
