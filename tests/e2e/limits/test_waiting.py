"""Requests that wait for a bridge that is being built, or for a body that does not arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.types import Message

from fastapi_aibridge import AIBridge, GatewayError, MCPServer, MemoryRecorder, Principal, Settings
from tests.waiting import until

pytestmark = pytest.mark.anyio


class SlowBuilder:
    """An app's list of MCP servers that is built when the test lets it."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()

    async def build(self, principal: Principal) -> Sequence[MCPServer]:
        await self.go_on.wait()
        return ()


def settings(**values: Any) -> Settings:
    providers = {"openai": {"base_url": "http://127.0.0.1:9/v1", "api_key": "sk-central-0001", "max_retries": 0}}
    given = {"providers": providers, "client_keys": {"ann": "k-ann"}, "shutdown_grace": 0.1, **values}
    return Settings.model_validate(given)


class Client:
    """One request over ASGI, with a whole or an incomplete body."""

    def __init__(self, app: FastAPI, path: str, body: bytes, *, is_whole: bool) -> None:
        self.sent: list[Message] = []
        self._pieces = [body]
        self._is_whole = is_whole
        headers = [(b"authorization", b"Bearer k-ann"), (b"content-type", b"application/json")]
        scope = {
            "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
            "headers": headers, "root_path": "", "http_version": "1.1", "scheme": "http", "state": {},
            "client": ("127.0.0.1", 1), "server": ("gateway", 80),
        }  # fmt: skip
        self.task = asyncio.create_task(app(scope, self._receive, self._send))

    async def _receive(self) -> Message:
        if self._pieces:
            return {"type": "http.request", "body": self._pieces.pop(0), "more_body": not self._is_whole}
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async def _send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int | None:
        return self.sent[0]["status"] if self.sent else None


async def test_who_waits_for_a_bridge_counts_against_the_limits() -> None:
    """Requests that wait for a build count against the limits, and do not hold up other principals."""
    builder = SlowBuilder()
    limits = {"max_concurrent_per_principal": 2, "max_concurrent": 6, "max_wait": 0.05}
    aibridge = AIBridge(settings(limits=limits), recorder=MemoryRecorder(), mcp=builder)

    async def use(initiator: str) -> str:
        async with aibridge.bridge(Principal(initiator)) as bridge:
            return bridge.principal.initiator_id

    async with aibridge.lifespan(None):
        flood = [asyncio.create_task(use("ann")) for _ in range(8)]
        await until(lambda: sum(task.done() for task in flood) >= 6)
        waiting = [task for task in flood if not task.done()]
        refused = [task.exception() for task in flood if task.done()]
        assert [error.status for error in refused if isinstance(error, GatewayError)] == [429] * 6
        other = asyncio.create_task(use("ben"))
        await asyncio.sleep(0)
        builder.go_on.set()
        assert await other == "ben"
        assert [await task for task in waiting] == ["ann", "ann"]
        assert aibridge._host.runtime._engine.limits.inside == 0
        assert await use("ann") == "ann"


async def test_a_request_that_waits_is_not_counted_twice() -> None:
    """A limit of requests in a window counts a request once, even if it waited for a bridge."""
    aibridge = AIBridge(settings(limits={"requests": 1, "window": 60}), recorder=MemoryRecorder())
    app = FastAPI()
    app.include_router(aibridge.router, prefix="/ai")
    async with aibridge.lifespan(app):
        for expected in (502, 429):
            body = b'{"model": "m", "messages": []}'
            client = Client(app, "/ai/openai/v1/chat/completions", body, is_whole=True)
            await asyncio.wait_for(client.task, 30)
            assert client.status == expected


@pytest.mark.parametrize("path", ["/ai/openai/v1/chat/completions", "/ai/openai/v1/conversations"])
@pytest.mark.parametrize("how", ["drain", "end"])
async def test_the_end_reaches_a_body_that_does_not_come(path: str, how: str) -> None:
    """After the grace period draining and shutdown answer requests whose body is incomplete."""
    aibridge = AIBridge(settings(), recorder=MemoryRecorder())
    app = FastAPI()
    app.include_router(aibridge.router, prefix="/ai")
    lifespan = aibridge.lifespan(app)
    await lifespan.__aenter__()
    client = Client(app, path, b'{"model": "gpt-5", ', is_whole=False)
    await asyncio.sleep(0.05)
    assert not client.task.done()
    if how == "drain":
        aibridge.drain()
    else:
        await asyncio.wait_for(lifespan.__aexit__(None, None, None), 30)
    await asyncio.wait_for(client.task, 30)
    assert client.status == 503
    if how == "drain":
        await lifespan.__aexit__(None, None, None)
