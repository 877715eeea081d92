"""An app with the gateway that is called in process, with an upstream on a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from fastapi import FastAPI

from fastapi_aibridge import AIBridge, InterceptionRecord, MemoryRecorder, Settings
from fastapi_aibridge.recorder import InterceptionQuery

from .raw import Answer, RawUpstream

CHAT = "/ai/openai/v1/chat/completions"
ADMIN = {"authorization": "Bearer admin-token"}
KEYS = ("sk-first-0123456789", "sk-second-0123456789")


@dataclass
class App:
    aibridge: AIBridge
    app: FastAPI
    client: httpx.AsyncClient
    upstream: RawUpstream
    recorder: MemoryRecorder

    async def chat(self, caller: str = "alice", model: str = "gpt-5") -> httpx.Response:
        headers = {"authorization": f"Bearer key-of-{caller}"}
        return await self.client.post(CHAT, headers=headers, json={"model": model, "messages": []})

    async def admin(self, path: str) -> Any:
        answer = await self.client.get(f"/ai/admin/{path}", headers=ADMIN)
        assert answer.status_code == 200
        return answer.json() if answer.headers["content-type"] == "application/json" else answer.text

    async def record(self, answer: httpx.Response) -> InterceptionRecord:
        record = await self.recorder.get(answer.headers["x-aibridge-interception-id"])
        assert record is not None
        return record

    async def records(self) -> list[InterceptionRecord]:
        return (await self.recorder.list(InterceptionQuery(limit=500))).items


def settings_for(upstream: RawUpstream, *, provider: dict[str, Any] | None = None, **more: Any) -> Settings:
    one = {"base_url": upstream.base_url, "api_keys": KEYS, "max_retries": 0, **(provider or {})}
    return Settings(
        providers={"openai": one},
        client_keys={name: f"key-of-{name}" for name in ("alice", "bob")},
        admin_token="admin-token",
        **more,
    )


@asynccontextmanager
async def running(*answers: Answer, provider: dict[str, Any] | None = None, **settings: Any) -> AsyncIterator[App]:
    async with RawUpstream(*answers) as upstream:
        recorder = MemoryRecorder()
        aibridge = AIBridge(lambda: settings_for(upstream, provider=provider, **settings), recorder=recorder)
        app = FastAPI()
        app.include_router(aibridge.router, prefix="/ai")
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://test") as client,
        ):
            yield App(aibridge, app, client, upstream, recorder)
