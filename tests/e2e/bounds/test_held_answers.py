"""Responses that wait for their clients count against the memory for bodies, like requests."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.types import Message

from fastapi_aibridge import AIBridge, Facts, MemoryRecorder, Prompt, Status
from tests.e2e.gateway.bodies import CHAT
from tests.e2e.gateway.gateway import gateway, settings_for
from tests.e2e.gateway.upstream import Call
from tests.recorder.builders import ending, interception

pytestmark = pytest.mark.anyio
Answering = Callable[[Call], Coroutine[Any, Any, None]]
MIB = 2**20
KEYS = {"alice": "k-alice", "bob": "k-bob"}
MORE = b',"more":"' + b"x" * 24 * MIB + b'"}'
"""More than socket buffers take, so that the gateway has to hold the rest."""
PLAIN = CHAT.blocking[:-1] + MORE
EVENT = CHAT.events[0].rstrip()[:-1] + MORE + b"\n\n"
JSON = ("Content-Type", "application/json")


async def _quietly(answering: Coroutine[Any, Any, None]) -> None:
    with suppress(ConnectionError):
        await answering


async def plain(call: Call) -> None:
    await call.answer(PLAIN)


async def compressed(call: Call) -> None:
    await call.answer(gzip.compress(PLAIN), headers=[JSON, ("Content-Encoding", "gzip")])


async def event(call: Call) -> None:
    await call.stream(EVENT, *CHAT.events[1:])
    await call.end()


@pytest.mark.parametrize("answer", [plain, compressed, event])
async def test_answers_that_nobody_reads_leave_room_for_others(answer: Answering) -> None:
    """Who takes no answers holds half of the memory at most. Others go on, and in the end all of it is free again."""
    stream = answer is event
    async with gateway(memory={"bodies": 112 * MIB}, client_keys=KEYS) as gate:

        async def ask(stack: AsyncExitStack, key: str = "k-alice") -> tuple[int, asyncio.StreamReader]:
            client = await stack.enter_async_context(gate.connected())
            await client.send("POST", CHAT.target, CHAT.ask(stream=stream), key=key)
            answering = asyncio.create_task(_quietly(answer(await gate.upstream.call())))
            stack.callback(answering.cancel)
            return (await client.head())[0], client.reader

        async with AsyncExitStack() as stack:
            assert [(await ask(stack))[0] for _ in range(4)] == [200, 200, 503, 503]
            status, reader = await ask(stack, "k-bob")
            assert status == 200
            if not stream:
                assert await reader.readexactly(len(PLAIN)) == PLAIN
        await gate.idle()
        async with AsyncExitStack() as stack:
            assert [(await ask(stack))[0] for _ in range(3)] == [200, 200, 503]
        await gate.idle()
        failed = [one.ending for one in await gate.records(8) if one.ending and one.ending.status is Status.FAILED]
        assert len(failed) == 3
        assert all("the gateway holds as many bytes" in (one.error or "") for one in failed)


async def test_a_stream_of_large_events_goes_on() -> None:
    """Large events that the client takes need memory one at a time, and small ones need none."""
    async with gateway(memory={"bodies": 112 * MIB}) as gate, gate.connected() as client:
        await client.send("POST", CHAT.target, CHAT.ask(stream=True))
        call = await gate.upstream.call()
        asked = asyncio.create_task(call.stream(CHAT.events[0], *[EVENT] * 6, *CHAT.events[1:]))
        await client.head()
        size = 0
        while size < 6 * len(EVENT):
            size += len(await client.piece())
        await asked
        await call.end()
        await gate.idle()
        record = await gate.record()
        assert record.ending is not None
        assert record.ending.status is Status.COMPLETED


async def test_an_answer_that_is_too_large_for_the_memory_is_relayed_unread() -> None:
    """An answer over a quarter of the memory is relayed as it comes, whatever else is held."""
    async with gateway(memory={"bodies": 48 * MIB}) as gate:
        asked = asyncio.create_task(gate.request("POST", CHAT.target, CHAT.ask()))
        await (await gate.upstream.call()).answer(PLAIN)
        answer = await asked
        assert (answer.status, answer.body) == (200, PLAIN)


async def test_pages_of_own_records_that_nobody_reads_leave_room_for_others() -> None:
    """Pages of a caller's own records count until they are taken, and are sent in pieces."""
    app, recorder = FastAPI(), MemoryRecorder()
    aibridge = AIBridge(
        settings_for("http://127.0.0.1:9", memory={"bodies": 7 * MIB // 2}, client_keys=KEYS), recorder=recorder
    )
    app.include_router(aibridge.router, prefix="/ai")
    for one in ("alice", "bob"):
        begun = interception(initiator_id=one)
        await recorder.start(begun)
        await recorder.end(begun.id, ending(), Facts(prompts=[Prompt(message_id="m", text="x" * MIB)]))
    async with aibridge.lifespan(app):
        pages = [Page(app, name) for name in ("alice", "alice", "bob")]
        assert [await page.status() for page in pages] == [200, 503, 200]
        for page in pages:
            page.taken.set()
            await page.task
        assert max(pages[0].pieces) < MIB / 8
        assert MIB < sum(pages[0].pieces) < 2 * MIB
        again = Page(app, "alice")
        assert await again.status() == 200
        again.taken.set()
        await again.task


class Page:
    """A request for a caller's own records, whose client takes the answer once `taken` is set."""

    def __init__(self, app: FastAPI, name: str) -> None:
        headers = [(b"authorization", f"Bearer {KEYS[name]}".encode())]
        self._scope = {
            "type": "http", "method": "GET", "path": "/ai/me/interceptions", "raw_path": b"/ai/me/interceptions",
            "query_string": b"", "headers": headers, "http_version": "1.1", "scheme": "http", "root_path": "",
            "client": ("127.0.0.1", 1), "server": ("gateway", 80),
        }  # fmt: skip
        self.taken = asyncio.Event()
        self.pieces: list[int] = []
        self._status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(app(self._scope, self._receive, self._send))

    async def status(self) -> int:
        return await asyncio.wait_for(self._status, 30)

    async def _receive(self) -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status.set_result(message["status"])
        else:
            await self.taken.wait()
            self.pieces.append(len(message["body"]))
