"""An upstream that streams at the pace a test asks for, and names in each event the base URL it was called with."""

from __future__ import annotations

import asyncio
import json

from tests.loopback import LAST_CHUNK, Loopback, chunk, read_request, response_head

HEAD = response_head(headers=[("Content-Type", "text/event-stream"), ("Transfer-Encoding", "chunked")])


def event(delta: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": delta}, "finish_reason": finish}
    return b"data: " + json.dumps({"id": "c", "choices": [choice]}).encode() + b"\n\n"


class PacedUpstream(Loopback):
    """A provider with base URLs `{url}/<word>/v1`, where the word is the text of each event.

    The model sets the pace: `held` sends one event, and the rest once `release` is set; `3s` takes three seconds for
    thirty events; any other takes 5 ms for each of twenty events.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.release = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await self._exchange(reader, writer)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_request(reader)
        model = json.loads(request.body)["model"]
        word = request.path.split("/")[1]
        self.calls += 1

        async def send(data: bytes) -> None:
            writer.write(chunk(data))
            await writer.drain()

        writer.write(HEAD)
        await send(event(word))
        if model == "held":
            await self.release.wait()
        for _ in range(29 if model == "3s" else 19):
            await asyncio.sleep(0.1 if model == "3s" else 0.005)
            await send(event(word))
        await send(event(word, "stop") + b"data: [DONE]\n\n")
        writer.write(LAST_CHUNK)
        await writer.drain()
