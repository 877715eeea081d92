"""An upstream that holds its responses until the test releases them, and bills one cent for each."""

from __future__ import annotations

import asyncio
import json

from tests.loopback import Loopback, read_request, response_head

USAGE = {"prompt_tokens": 0, "completion_tokens": 1, "total_tokens": 1}
MESSAGE = {"index": 0, "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}
ANSWER = json.dumps({"id": "c", "object": "chat.completion", "choices": [MESSAGE], "usage": USAGE}).encode()


class HeldUpstream(Loopback):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.answered = 0
        self.release = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            self.calls += 1
            await self.release.wait()
            head = [("Content-Type", "application/json"), ("Content-Length", str(len(ANSWER)))]
            writer.write(response_head(headers=head) + ANSWER)
            await writer.drain()
            self.answered += 1
