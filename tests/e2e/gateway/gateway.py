"""A gateway on a real socket, with an upstream that the test controls and a recorder that it can read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI

from fastapi_aibridge import (
    AIBridge,
    Ending,
    Facts,
    Interception,
    InterceptionQuery,
    InterceptionRecord,
    MemoryRecorder,
    Recorder,
    Settings,
)
from tests.waiting import until

from . import client
from .client import KEY, Answer, Client
from .server import Served, served
from .upstream import Upstream

OPENAI_KEY = "sk-central-openai-0001"
ANTHROPIC_KEY = "sk-ant-central-0000002"
ADMIN = "t-admin"
LIMIT = 60.0


class CountingRecorder(MemoryRecorder):
    """A recorder that keeps the order of starts and ends, and wakes the test at each end."""

    def __init__(self) -> None:
        super().__init__(max_items=100_000)
        self.starts: list[str] = []
        self.ends: list[str] = []
        self.ended = asyncio.Condition()

    async def start(self, interception: Interception) -> None:
        self.starts.append(interception.id)
        await super().start(interception)

    async def end(self, interception_id: str, ending: Ending, facts: Facts) -> None:
        self.ends.append(interception_id)
        await super().end(interception_id, ending, facts)
        async with self.ended:
            self.ended.notify_all()


class Gateway:
    def __init__(self, aibridge: AIBridge, upstream: Upstream, recorder: Recorder, server: Served) -> None:
        self.aibridge = aibridge
        self.upstream = upstream
        self.recorder = recorder
        self.server = server
        self.port = server.port

    async def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        key: str | None = KEY,
    ) -> Answer:
        return await client.request(self.port, method, path, body, headers, key)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Client]:
        async with client.connected(self.port) as connection:
            yield connection

    async def records(self, ended: int = 1) -> list[InterceptionRecord]:
        """Return all interceptions, oldest first, once `ended` of them have ended."""
        recorder = self.recorder
        assert isinstance(recorder, CountingRecorder)
        async with asyncio.timeout(LIMIT), recorder.ended:
            await recorder.ended.wait_for(lambda: len(recorder.ends) >= ended)
        return (await recorder.list(InterceptionQuery(limit=100_000))).items[::-1]

    async def record(self) -> InterceptionRecord:
        (record,) = await self.records()
        return record

    async def idle(self) -> None:
        """Wait until no request holds a lease."""
        await until(lambda: not self.aibridge.pool.metrics().leases)


def settings_for(url: str, **values: Any) -> Settings:
    """Settings with an OpenAI and an Anthropic provider at this address, Alice's key and the admin token.

    `providers` are further settings of each provider; `openai_names` are the names of the OpenAI providers.
    """
    names = values.pop("openai_names", ("openai",))
    both = {"max_retries": 0, "circuit_breaker": {"enabled": False}, **values.pop("providers", {})}
    return Settings(
        **{
            "providers": {
                **{name: {"type": "openai", "base_url": f"{url}/v1", "api_key": OPENAI_KEY, **both} for name in names},
                "anthropic": {"type": "anthropic", "base_url": url, "api_key": ANTHROPIC_KEY, **both},
            },
            "client_keys": {"alice": KEY},
            "admin_token": ADMIN,
            "shutdown_grace": 0.2,
            **values,
        }
    )


@asynccontextmanager
async def gateway(
    *,
    recorder: Recorder | None = None,
    app: FastAPI | None = None,
    include: dict[str, Any] | None = None,
    bridge: dict[str, Any] | None = None,
    server: dict[str, Any] | None = None,
    **values: Any,
) -> AsyncIterator[Gateway]:
    """Start a gateway; `values` are settings, the dicts are for `include_router`, `AIBridge` and `served`."""
    app = app or FastAPI()
    recorder = CountingRecorder() if recorder is None else recorder
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(Upstream())
        aibridge = AIBridge(settings_for(upstream.url, **values), recorder=recorder, **(bridge or {}))
        app.include_router(aibridge.router, prefix="/ai", **(include or {}))
        running = await stack.enter_async_context(served(app, **(server or {})))
        yield Gateway(aibridge, upstream, recorder, running)
