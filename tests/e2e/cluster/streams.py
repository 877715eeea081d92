"""Streams that run all the time, and a provider that notes the keys with which their requests arrived."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections import defaultdict
from dataclasses import dataclass

from tests.e2e.gateway import client
from tests.e2e.load.upstream import HEAD, event
from tests.loopback import LAST_CHUNK, Loopback, chunk, read_request

from .servers import Cluster

EVENTS = 10
PACE = 0.3


class TellingUpstream(Loopback):
    """A provider that streams for three seconds. The model of a request is its unique name."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: dict[str, list[int]] = defaultdict(list)
        """The numbers of the keys of all calls, by the name of the request."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await read_request(reader)
            key = request.header("authorization") or ""
            self.keys[json.loads(request.body)["model"]].append(int(key.rpartition("-")[2]))
            writer.write(HEAD)
            for number in range(EVENTS):
                writer.write(chunk(event("word", "stop" if number == EVENTS - 1 else None)))
                await writer.drain()
                await asyncio.sleep(PACE)
            writer.write(chunk(b"data: [DONE]\n\n") + LAST_CHUNK)
            await writer.drain()


@dataclass(slots=True)
class Outcome:
    name: str
    generation: int
    """The cluster's generation when the request was sent."""
    begun: float
    ended: float = 0.0
    status: int = 0
    """The response's status; 0 if no response came."""
    whole: bool = False
    told: bool = False
    """Whether the last event was an error event."""


class Streams:
    """Concurrent series of streams, which run until `stopping` is set. `label` begins the requests' names."""

    def __init__(self, cluster: Cluster, label: str, key: str, *, provider: str = "openai") -> None:
        self._cluster = cluster
        self._key = key
        self._provider = provider
        self._names = (f"{label}-{number}" for number in itertools.count())
        self.stopping = False
        self.outcomes: list[Outcome] = []

    async def run(self, number: int) -> None:
        await asyncio.gather(*(self._one_after_the_other(place) for place in range(number)))

    async def _one_after_the_other(self, place: int) -> None:
        await asyncio.sleep(place * EVENTS * PACE / 100)  # spread the starts over time
        while not self.stopping:
            outcome = Outcome(next(self._names), self._cluster.generation[self._provider], time.monotonic())
            self.outcomes.append(outcome)
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):  # the worker is gone
                await self._stream(outcome)
            outcome.ended = time.monotonic()
            if outcome.status != 200:
                await asyncio.sleep(0.3)

    async def _stream(self, outcome: Outcome) -> None:
        body = json.dumps({"model": outcome.name, "stream": True, "messages": [{"role": "user", "content": "hi"}]})
        async with client.connected(self._cluster.next_port()) as connection:
            path = f"/ai/{self._provider}/v1/chat/completions"
            await connection.send("POST", path, body.encode(), key=self._key)
            outcome.status, _ = await connection.head()
            if outcome.status != 200:
                return
            last = b""
            while piece := await connection.piece():
                last = piece
            outcome.whole = b"data: [DONE]" in last
            outcome.told = b'"error"' in last
