"""A gateway behind uvicorn, with a scripted model as its upstream and a real MCP server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anthropic
import openai
from fastapi import FastAPI

from fastapi_aibridge import AIBridge, InterceptionRecord
from fastapi_aibridge.testing import Reply, ScriptedProvider, ToolCall
from tests.waiting import until

from ...formats.rounds.driving import MESSAGES, Kind, Seen, read
from ..gateway import client
from ..gateway.client import KEY, Answer
from ..gateway.gateway import ADMIN, CountingRecorder, settings_for
from ..gateway.server import Served, served

BOB = "k-bob"


def tool(name: str, id_: str | None = None, server: str = "box", **arguments: Any) -> ToolCall:
    """Make a call of an injected tool."""
    named = f"bmcp_{server}_{name}"
    return ToolCall(named, arguments, id_) if id_ else ToolCall(named, arguments)


class GatewayHarness:
    def __init__(
        self, aibridge: AIBridge, provider: ScriptedProvider, recorder: CountingRecorder, server: Served
    ) -> None:
        self.aibridge = aibridge
        self.provider = provider
        self.recorder = recorder
        self.server = server

    @property
    def upstream(self) -> list[Any]:
        """The bodies of the requests that went upstream."""
        return [one.json() for one in self.provider.received]

    def target(self, kind: Kind) -> str:
        return f"/ai/{'anthropic' if kind is MESSAGES else 'openai'}{kind.path}"

    async def request(self, kind: Kind, *, streamed: bool, key: str = KEY, **members: Any) -> Answer:
        body = kind.request(streamed=streamed, **members)
        return await client.request(self.server.port, "POST", self.target(kind), body, key=key)

    async def ask(self, kind: Kind, *, streamed: bool, key: str = KEY, **members: Any) -> Seen:
        """Send a request; return the response as the vendor's SDK reads it."""
        answer = await self.request(kind, streamed=streamed, key=key, **members)
        assert (answer.status, answer.whole) == (200, True), answer.body
        assert b"bmcp_" not in answer.body
        return read(kind, answer.body, streamed=streamed)

    async def record(self) -> InterceptionRecord:
        """Return the only record, once it has ended."""
        await until(lambda: self.recorder.ends)
        (record,) = self.recorder.records
        return record

    async def metrics(self) -> str:
        answer = await client.request(self.server.port, "GET", "/ai/admin/metrics", key=ADMIN)
        return answer.body.decode()

    @asynccontextmanager
    async def openai(self, key: str = KEY) -> AsyncIterator[openai.AsyncOpenAI]:
        url = f"{self.server.url}/ai/openai/v1"
        async with openai.AsyncOpenAI(api_key=key, base_url=url, max_retries=0) as sdk:
            yield sdk

    @asynccontextmanager
    async def anthropic(self, key: str = KEY) -> AsyncIterator[anthropic.AsyncAnthropic]:
        url = f"{self.server.url}/ai/anthropic"
        async with anthropic.AsyncAnthropic(api_key=key, base_url=url, max_retries=0) as sdk:
            yield sdk


@asynccontextmanager
async def harness(
    script: Reply | Sequence[Reply] | Any, urls: dict[str, str], **values: Any
) -> AsyncIterator[GatewayHarness]:
    """Start a gateway; `urls` are the MCP servers by name, and `values` are settings."""
    provider, recorder, app = ScriptedProvider(script), CountingRecorder(), FastAPI()
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(provider.serve())
        servers = {name: {"url": where} for name, where in urls.items()}
        keys = {"client_keys": {"alice": KEY, "bob": BOB}}
        aibridge = AIBridge(settings_for(url, **{**keys, "mcp_servers": servers, **values}), recorder=recorder)
        app.include_router(aibridge.router, prefix="/ai")
        running = await stack.enter_async_context(served(app))
        yield GatewayHarness(aibridge, provider, recorder, running)
