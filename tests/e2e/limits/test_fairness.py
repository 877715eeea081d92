"""One caller who floods the gateway, and the effect on another one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.types import Message

from fastapi_aibridge import AIBridge, MemoryRecorder, Settings
from fastapi_aibridge.exchange.fair_queue import ALONE
from tests.waiting import until

from ..load.upstream import PacedUpstream

pytestmark = pytest.mark.anyio

FLOOD = 300
BODY = b'{"model": "held", "stream": true, "messages": []}'


async def test_many_streams_of_one_do_not_hold_up_the_stream_of_another() -> None:
    """An event of one caller's stream is sent after shares of another caller's 300 streams, not after all of them.

    All streams have an event at the same moment, the single one last, and none of them loses anything.
    """
    sent: list[str] = []

    async def stream(app: FastAPI, caller: str) -> bytes:
        body = bytearray()

        messages: list[Message] = [{"type": "http.request", "body": BODY, "more_body": False}]

        async def receive() -> Message:
            return messages.pop() if messages else await asyncio.get_running_loop().create_future()

        async def send(message: Message) -> None:
            if piece := message.get("body"):
                sent.append(caller)
                body.extend(piece)

        await app(scope(caller), receive, send)
        return bytes(body)

    async with PacedUpstream() as upstream:
        provider = {"base_url": f"{upstream.url}/word/v1", "api_key": "sk-upstream"}
        keys = {"flood": "key-of-flood", "quiet": "key-of-quiet"}
        aibridge = AIBridge(Settings(providers={"openai": provider}, client_keys=keys), recorder=MemoryRecorder())
        app = FastAPI()
        app.include_router(aibridge.router)
        async with app.router.lifespan_context(app):
            streams = [asyncio.create_task(stream(app, "flood")) for _ in range(FLOOD)]
            await until(lambda: len(sent) == FLOOD)
            streams.append(asyncio.create_task(stream(app, "quiet")))
            await until(lambda: len(sent) == FLOOD + 1)
            sent.clear()
            upstream.release.set()
            bodies = await asyncio.gather(*streams)
    assert sent.index("quiet") <= 2 * ALONE < FLOOD / 2
    assert {body.count(b"\n\n") for body in bodies} == {22}


def scope(caller: str) -> dict[str, Any]:
    path = "/openai/v1/chat/completions"
    headers = [(b"authorization", f"Bearer key-of-{caller}".encode()), (b"content-type", b"application/json")]
    return {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": headers,
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50000),
    }
