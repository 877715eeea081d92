"""The gateway in the test's own process, on a real socket, with the scripted provider as its upstream."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
from fastapi import FastAPI

from fastapi_aibridge import AIBridge, Settings
from fastapi_aibridge.testing import Reply, ScriptedProvider
from tests.e2e.gateway.server import served

CHAT = "/ai/openai/v1/chat/completions"
MESSAGES = "/ai/anthropic/v1/messages"
RESPONSES = "/ai/openai/v1/responses"
BODIES: dict[str, Callable[[str], dict[str, Any]]] = {
    CHAT: lambda prompt: {"messages": [{"role": "user", "content": prompt}]},
    MESSAGES: lambda prompt: {"max_tokens": 100, "messages": [{"role": "user", "content": prompt}]},
    RESPONSES: lambda prompt: {"input": prompt},
}


class Gateway:
    def __init__(self, aibridge: AIBridge, provider: ScriptedProvider, http: httpx.AsyncClient) -> None:
        self.aibridge = aibridge
        self.provider = provider
        self._http = http
        self.url = str(http.base_url)

    async def ask(
        self,
        path: str = CHAT,
        *,
        prompt: str = "hi",
        model: str = "gpt-5",
        stream: bool = False,
        key: str = "k-alice",
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        """Send a request as a client would; return the whole response."""
        body = {"model": model, "stream": stream, **BODIES[path](prompt)}
        return await self._http.post(
            path,
            content=json.dumps(body),
            headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json", **(headers or {})},
        )

    async def read(self, path: str, **query: Any) -> httpx.Response:
        """Call an admin route; return its response."""
        query = {name: value for name, value in query.items() if value is not None}
        return await self._http.get(f"/ai/admin{path}", params=query, headers={"Authorization": "Bearer t-admin"})

    async def json(self, path: str, **query: Any) -> Any:
        answer = await self.read(path, **query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def listing(self, *, limit: int = 100, **filters: Any) -> list[dict[str, Any]]:
        """Return all interceptions that match, read page by page."""
        items: list[dict[str, Any]] = []
        cursor = None
        while True:
            page = await self.json("/interceptions", limit=limit, cursor=cursor, **filters)
            assert len(page["items"]) <= limit
            items += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return items


@asynccontextmanager
async def gateway(
    recorder: str | None = None,
    *,
    reply: Any = None,
    bridge: dict[str, Any] | None = None,
    recorder_enabled: bool = True,
    recorder_options: dict[str, Any] | None = None,
    **values: Any,
) -> AsyncIterator[Gateway]:
    """Start a gateway; `recorder` is the database's URL, `bridge` is for `AIBridge`, `values` are settings."""
    async with AsyncExitStack() as stack:
        provider = ScriptedProvider(reply or Reply("Hello"))
        upstream = await stack.enter_async_context(provider.serve())
        common = {"max_retries": 0, "circuit_breaker": {"enabled": False}}
        settings = {
            "providers": {
                "openai": {"base_url": f"{upstream}/v1", "api_key": "sk-central", **common},
                "anthropic": {"base_url": upstream, "api_key": "sk-ant-central", **common},
            },
            "client_keys": {"alice": "k-alice", "bob": "k-bob"},
            "admin_token": "t-admin",
            "shutdown_grace": 0,
            **values,
        }
        url = {"url": recorder} if recorder is not None else {}
        settings["recorder"] = {**url, "retention": 0, "enabled": recorder_enabled, **(recorder_options or {})}
        aibridge = AIBridge(Settings(**settings), **(bridge or {}))
        app = FastAPI()
        app.include_router(aibridge.router, prefix="/ai")
        server = await stack.enter_async_context(served(app))
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=server.url, timeout=20, trust_env=False))
        yield Gateway(aibridge, provider, http)
