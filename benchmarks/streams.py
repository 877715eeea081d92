"""Streams watched one by one: when each event came, from a client that costs so little that it measures others."""

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
    """One stream. Times are in seconds."""

    began: float
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    """When so many events came together."""
    status: int = 0
    ended: float | None = None

    @property
    def whole(self) -> bool:
        return self.status == 200 and self.ended is not None

    @property
    def first(self) -> float:
        """From the request to the first event."""
        return self.arrivals[0][0] - self.began

    def lateness(self) -> list[float]:
        """Of each text event: after the time at which it would have come had nothing stood in its way."""
        late: list[float] = []
        for at, number in self.arrivals:
            for _ in range(number):
                late.append(at - self.began - len(late) * PACE)
        return late[:EVENTS]


class _Stream(asyncio.Protocol):
    def __init__(self, request: bytes, watched: Watched, over: asyncio.Future[None]) -> None:
        self._request = request
        self._watched = watched
        self._over = over
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        watched = self._watched
        now = asyncio.get_running_loop().time()
        if not watched.status:
            watched.status = int(data[9:12])
        # A chunk's end is no event's: only an event ends in two line feeds.
        number = data.count(b"\n\n") + (self._rest.endswith(b"\n") and data.startswith(b"\n"))
        self._rest = (self._rest + data[-5:])[-5:]
        if number:
            watched.arrivals.append((now, number))
        if watched.status != 200 or self._rest == b"0\r\n\r\n":
            watched.ended = now
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        if not self._over.done():
            self._over.set_result(None)


async def watch(url: str, key: str = load.CLIENT_KEY) -> Watched:
    """One stream on a connection of its own, from the moment that the connection is made."""
    place, body = urlsplit(url), load.body(stream=True).encode()
    head = f"POST {place.path} HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\n"
    head += f"Authorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n\r\n"
    loop = asyncio.get_running_loop()
    watched, over = Watched(loop.time()), loop.create_future()
    await loop.create_connection(
        lambda: _Stream(head.encode() + body, watched, over), str(place.hostname), place.port or 80
    )
    async with asyncio.timeout(LIMIT):
        await over
    return watched


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
