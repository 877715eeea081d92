"""An upstream that writes HTTP by hand, so that it can break every rule of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from tests.loopback import Loopback, Request, read_request, response_head
from tests.waiting import turns


@dataclass(frozen=True)
class Answer:
    """The bytes written after a request, none if `silent`. Then `hang_up` aborts the connection, and `stalls` does
    nothing until the client leaves.
    """

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    hang_up: bool = False
    silent: bool = False
    stalls: bool = False

    def encoded(self) -> bytes:
        headers = {"content-type": "application/json", "content-length": str(len(self.body)), **self.headers}
        return response_head(self.status, headers.items()) + self.body


HANG_UP = Answer(hang_up=True, silent=True)
SILENCE = Answer(silent=True)


class RawUpstream(Loopback):
    """An upstream that gives the answers in turn, repeating the last one, and keeps the requests."""

    def __init__(self, *answers: Answer) -> None:
        super().__init__()
        self.answers = list(answers)
        self.requests: list[Request] = []
        self.numbers: list[int] = []
        """The number of the connection that each request came on."""
        self.connections = 0
        self.arrived = asyncio.Event()

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    @property
    def keys(self) -> list[str]:
        """The key that each request came with."""
        return [(request.header("authorization") or "").removeprefix("Bearer ") for request in self.requests]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        while True:
            self.requests.append(await read_request(reader))
            self.numbers.append(number)
            self.arrived.set()
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if not answer.silent:
                writer.write(answer.encoded())
                await writer.drain()
            if answer.stalls or (answer.silent and not answer.hang_up):
                await reader.read()
                return
            if answer.hang_up:
                await turns()  # an earlier abort would discard the bytes just written
                writer.transport.abort()
                return
