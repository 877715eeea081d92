"""Bridges outside of requests: background tasks, WebSockets, jobs and scripts."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient

from fastapi_aibridge import (
    AIBridge,
    ConfigurationError,
    MemoryRecorder,
    PoolShutdown,
    Principal,
    RequestBridge,
    Settings,
    get_bridge,
)
from fastapi_aibridge.testing import Reply, ScriptedProvider
from fastapi_aibridge.testing.serving import serve

from ..e2e.gateway.client import connected
from .harness import KEY
from .held import LIMIT, held_bridge

pytestmark = pytest.mark.anyio

Bridge = Annotated[RequestBridge, Depends(get_bridge)]
AUTH = {"Authorization": f"Bearer {KEY}"}


def settings_at(base_url: str) -> Settings:
    return Settings(
        providers={"openai": {"base_url": f"{base_url}/v1", "api_key": "sk-test", "max_retries": 0}},
        client_keys={"alice": KEY},
        shutdown_grace=0.2,
    )


async def ask(bridge: RequestBridge, text: str) -> str:
    return (await bridge.openai().responses.create(model="gpt-5", input=text)).output_text


async def test_a_websocket_streams_tokens() -> None:
    """A WebSocket handler sends its client each token as it arrives."""
    app = FastAPI()

    @app.websocket("/talk")
    async def talk(socket: WebSocket, bridge: Bridge) -> None:
        await socket.accept()
        async with bridge.openai().responses.stream(model="gpt-5", input=await socket.receive_text()) as stream:
            async for event in stream:
                if event.type == "response.output_text.delta":
                    await socket.send_text(event.delta)
        await socket.close()

    provider = ScriptedProvider(Reply("one two three"))
    with provider.serve_in_thread() as base_url:
        app.include_router(AIBridge(settings_at(base_url), recorder=MemoryRecorder()).router, prefix="/ai")
        with TestClient(app) as client, client.websocket_connect("/talk", headers=AUTH) as socket:
            socket.send_text("Count")
            assert [socket.receive_text() for _ in range(3)] == ["one", " two", " three"]


async def test_a_background_task() -> None:
    """A task that runs after the response acquires its own bridge for the request's principal."""
    app = FastAPI()
    told: list[str] = []
    provider, recorder = ScriptedProvider(Reply("Done")), MemoryRecorder()

    @app.post("/later")
    async def later(bridge: Bridge, tasks: BackgroundTasks) -> None:
        tasks.add_task(work, bridge.principal)

    async def work(principal: Principal) -> None:
        async with aibridge.bridge(principal) as bridge:
            told.append(await ask(bridge, "Do it"))

    with provider.serve_in_thread() as base_url:
        aibridge = AIBridge(settings_at(base_url), recorder=recorder)
        app.include_router(aibridge.router, prefix="/ai")
        with TestClient(app, headers=AUTH) as client:
            client.post("/later").raise_for_status()
    assert told == ["Done"]
    assert [record.interception.initiator_id for record in recorder.records] == ["alice"]


async def test_a_client_that_leaves_a_streaming_handler_reaches_the_upstream() -> None:
    """When the app's client leaves, the upstream stream of its handler ends."""
    app = FastAPI()

    @app.post("/stories", response_class=StreamingResponse)
    async def tell(bridge: Bridge) -> AsyncIterator[str]:
        async with bridge.openai().responses.stream(model="gpt-5", input="A story") as stream:
            async for event in stream:
                if event.type == "response.output_text.delta":
                    yield event.delta

    provider = ScriptedProvider(Reply("word " * 1000, delay=0.01))
    async with provider.serve() as base_url:
        aibridge = AIBridge(settings_at(base_url), recorder=MemoryRecorder())
        app.include_router(aibridge.router, prefix="/ai")
        async with aibridge.lifespan(app) as state:

            async def with_state(scope: dict[str, object], receive: object, send: object) -> None:
                await app(scope | {"state": dict(state)}, receive, send)  # type: ignore[arg-type]

            async with serve(with_state) as url, connected(int(url.rpartition(":")[2])) as client:
                await client.send("POST", "/stories", headers={"Content-Length": "0"}, key=KEY)
                assert (await client.head())[0] == 200
                assert await client.piece() == b"word"
                client.leave()
                [received] = provider.received
                assert await asyncio.to_thread(received.hung_up.wait, LIMIT)


async def test_without_an_app_it_starts_and_ends_by_itself() -> None:
    """Without a running app the block itself starts the lifespan and ends it."""
    async with ScriptedProvider(Reply("Hello")).serve() as base_url:
        aibridge = AIBridge(settings_at(base_url), recorder=MemoryRecorder())
        for _ in range(2):
            async with aibridge.bridge(Principal("job")) as bridge:
                assert await ask(bridge, "Hello") == "Hello"
                assert aibridge.running
            assert not aibridge.running


async def test_blocks_side_by_side_share_one_start() -> None:
    """Concurrent blocks without an app share one lifespan, which the last one ends."""
    async with ScriptedProvider(Reply("Hello")).serve() as base_url:
        aibridge = AIBridge(settings_at(base_url), recorder=MemoryRecorder())
        async with aibridge.bridge(Principal("one")) as one:
            async with aibridge.bridge(Principal("one")) as same, aibridge.bridge(Principal("two")) as two:
                assert same is one
                assert two is not one
            assert await ask(one, "Hello") == "Hello"
        assert not aibridge.running


async def test_an_app_that_stops_does_not_wait_for_a_job() -> None:
    """An app that stops ends a running job after the grace period instead of waiting for it."""
    async with held_bridge() as held:
        aibridge = AIBridge(held.aibridge.settings, recorder=MemoryRecorder())
        begun = asyncio.Event()

        async def job() -> None:
            async with aibridge.bridge(Principal("job")) as bridge:
                begun.set()
                await ask(bridge, "for ever")

        async with aibridge.lifespan(FastAPI()):
            running = asyncio.create_task(job())
            await asyncio.wait_for(begun.wait(), LIMIT)
            await held.upstream.call()
        with pytest.raises(Exception, match="closing this session"):
            await running
        assert not aibridge.running


async def test_a_job_that_begins_while_the_app_stops_is_refused() -> None:
    """A job that begins while the app stops is refused instead of starting the gateway again."""
    async with held_bridge() as held:
        aibridge = AIBridge(held.aibridge.settings, recorder=MemoryRecorder())
        lifespan = aibridge.lifespan(FastAPI())
        await lifespan.__aenter__()
        async with aibridge.pool.acquire(Principal("alice")):
            stopping = asyncio.create_task(lifespan.__aexit__(None, None, None))
            await asyncio.sleep(0)  # lets the stop begin
            with pytest.raises(PoolShutdown):
                await aibridge.bridge(Principal("late")).__aenter__()
        await stopping


async def test_another_event_loop_is_refused() -> None:
    """A bridge in another event loop, such as a thread's own, is refused with an error that says so."""
    async with held_bridge() as held:
        refused: list[BaseException] = []

        async def use() -> None:
            async with held.aibridge.bridge(Principal("thread")):
                pass

        def run() -> None:
            try:
                asyncio.run(use())
            except ConfigurationError as error:
                refused.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        await asyncio.to_thread(thread.join)
        assert "another event loop" in str(refused[0])


SCRIPT = """
import asyncio
from fastapi_aibridge import AIBridge, Principal

async def main():
    async with AIBridge().bridge(Principal("nightly")) as bridge:
        reply = await bridge.openai().responses.create(model="gpt-5", input="Hello")
        print(reply.output_text)

asyncio.run(main())
"""


async def test_a_script(tmp_path: Path) -> None:
    """A script in its own process gets a response, exits cleanly and leaves a record in the database."""
    with ScriptedProvider(Reply("Hello")).serve_in_thread() as base_url:
        environment = {
            "AIBRIDGE_PROVIDERS__OPENAI__BASE_URL": f"{base_url}/v1",
            "AIBRIDGE_PROVIDERS__OPENAI__API_KEY": "sk-test",
            "AIBRIDGE_RECORDER__URL": f"sqlite+aiosqlite:///{tmp_path / 'records.db'}",
        }
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-W", "error", "-c", SCRIPT],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert (done.stdout, done.stderr, done.returncode) == ("Hello\n", "", 0)
        export = [sys.executable, "-m", "fastapi_aibridge", "export"]
        exported = await asyncio.to_thread(
            subprocess.run, export, env=environment, cwd=tmp_path, capture_output=True, text=True
        )
        assert '"initiator_id":"nightly"' in exported.stdout.replace(" ", "")
        assert '"status":"completed"' in exported.stdout.replace(" ", "")
