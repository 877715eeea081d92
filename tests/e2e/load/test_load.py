"""Reloads and evictions while hundreds of streams run on a real server with real sockets: no stream is cut."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from fastapi_aibridge import AIBridge, MemoryRecorder, runtime
from fastapi_aibridge.shared_bridge import SharedBridge
from tests.e2e.gateway import client
from tests.e2e.gateway.server import served_in_thread
from tests.waiting import until

from .upstream import PacedUpstream

pytestmark = pytest.mark.anyio

CHAT = "/ai/openai/v1/chat/completions"
TOKEN = "t-admin"
RELOADS, STREAMS, USERS = 50, 200, 40


def configure(file: Path, upstream: PacedUpstream, word: str, users: int, max_items: int = 5000) -> None:
    lines = [
        f'admin_token = "{TOKEN}"',
        "shutdown_grace = 0",
        "[pool]",
        f"max_items = {max_items}",
        "[providers.openai]",
        f'base_url = "{upstream.url}/{word}/v1"',
        'api_key = "sk-load"',
        "max_retries = 0",
        "[client_keys]",
        *(f'u{number} = "k-{number}"' for number in range(users)),
    ]
    file.write_text("\n".join(lines))


async def stream(port: int, user: int, model: str) -> list[str]:
    """Return the words of a whole stream; anything else fails the test."""
    body = json.dumps({"model": model, "stream": True, "messages": []}).encode()
    async with client.connected(port) as connection:
        await connection.send("POST", CHAT, body, key=f"k-{user}")
        answer = await asyncio.wait_for(connection.answer(), 120)
    assert (answer.status, answer.whole) == (200, True), answer
    *events, done, rest = answer.body.split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b""), answer.body[-300:]
    return [json.loads(one.removeprefix(b"data: "))["choices"][0]["delta"]["content"] for one in events]


async def pool_at_rest(port: int) -> dict[str, Any]:
    """Return the pool's counters, once the last lease is released and the last retired bridge is closed."""
    async with asyncio.timeout(60):
        while True:
            answer = await client.request(port, "GET", "/ai/admin/pool", key=TOKEN)
            pool: dict[str, Any] = json.loads(answer.body)
            if not pool["leases"] and not pool["draining"]:
                return pool
            await asyncio.sleep(0.01)


async def test_reloads_under_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under 50 reloads none of 200 streams fails, and none that begins after a reload reaches an older provider."""
    file = tmp_path / "aibridge.toml"
    monkeypatch.setenv("AIBRIDGE_CONFIG_FILE", str(file))
    answered, reloading, finished = 0, True, 0

    async def keep_streaming(port: int, user: int) -> None:
        nonlocal finished
        while reloading:
            at_least = answered
            words = await stream(port, user, "quick")
            assert len(set(words)) == 1, "one stream, two providers"
            assert int(words[0].removeprefix("g")) >= at_least, "an old provider"
            finished += 1

    async with PacedUpstream() as upstream:
        configure(file, upstream, "g0", USERS)
        app = FastAPI()
        app.include_router(AIBridge(recorder=MemoryRecorder()).router, prefix="/ai")
        with served_in_thread(app) as server:
            port = server.port
            held = [asyncio.create_task(stream(port, number % USERS, "held")) for number in range(STREAMS // 2)]
            await until(lambda: upstream.calls >= len(held))
            running = [asyncio.create_task(keep_streaming(port, number % USERS)) for number in range(STREAMS // 2)]
            for generation in range(1, RELOADS + 1):
                await asyncio.to_thread(configure, file, upstream, f"g{generation}", USERS)
                answer = await client.request(port, "POST", "/ai/admin/reload", key=TOKEN)
                assert answer.status == 200
                assert json.loads(answer.body)["provider_version"] == generation + 1
                answered = generation
                await asyncio.sleep(0.03)
            reloading = False
            await asyncio.gather(*running)
            assert [repr(task.exception() or task.result())[:400] for task in held if task.done()] == []
            upstream.release.set()
            assert {tuple(words) for words in await asyncio.gather(*held)} == {("g0",) * 21}
            assert finished > RELOADS
            assert (await pool_at_rest(port))["evictions"]["reloaded"] > RELOADS


class Watched:
    """The bridges that were built, closed, and closed while a request ran."""

    def __init__(self) -> None:
        self.built: list[SharedBridge] = []
        self.closed: list[SharedBridge] = []
        self.cut: list[SharedBridge] = []

    def bridge_class(self) -> type[SharedBridge]:
        watched = self

        class WatchedBridge(SharedBridge):
            async def start(self) -> None:
                watched.built.append(self)
                await super().start()

            async def aclose(self) -> None:
                watched.closed.append(self)
                if self._running:
                    watched.cut.append(self)
                await super().aclose()

        return WatchedBridge


async def test_evictions_under_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 principals with long and short streams in a pool of 4: none is cut, and each bridge is closed once."""
    users = 64
    file = tmp_path / "aibridge.toml"
    monkeypatch.setenv("AIBRIDGE_CONFIG_FILE", str(file))
    watched = Watched()
    monkeypatch.setattr(runtime, "SharedBridge", watched.bridge_class())

    async def use(port: int, user: int) -> None:
        long = asyncio.create_task(stream(port, user, "3s"))
        for _ in range(4):
            await asyncio.sleep(0.1 + user / 100)
            assert len(await stream(port, user, "quick")) == 21
        assert len(await long) == 31

    async with PacedUpstream() as upstream:
        configure(file, upstream, "any", users, max_items=4)
        app = FastAPI()
        app.include_router(AIBridge(recorder=MemoryRecorder()).router, prefix="/ai")
        with served_in_thread(app) as server:
            port = server.port
            await asyncio.gather(*(use(port, user) for user in range(users)))
            pool = await pool_at_rest(port)
            assert pool["size"] == 4
            assert pool["evictions"]["capacity"] == pool["keys_added"] - 4 == len(watched.closed)
            assert pool["keys_added"] > users
    assert sorted(map(id, watched.closed)) == sorted(map(id, watched.built))
    assert watched.cut == []
