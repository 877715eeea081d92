"""One gateway, reached over a socket and in process, whose results must be the same both ways."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anthropic
import openai
from fastapi import FastAPI

from fastapi_aibridge import AIBridge, InterceptionRecord, MemoryRecorder, Principal, RequestBridge, Settings
from fastapi_aibridge.testing import Reply, ScriptedProvider
from fastapi_aibridge.testing.provider import Script
from tests.e2e.gateway.server import served

KEY = "k-alice"
CENTRAL = "sk-central-0123456789"


class GatewayHarness:
    """Runs SDK calls over a socket and in process; `provider` is the upstream of both."""

    def __init__(
        self, aibridge: AIBridge, bridge: RequestBridge, provider: ScriptedProvider, recorder: MemoryRecorder, url: str
    ) -> None:
        self.aibridge = aibridge
        self.bridge = bridge
        self.provider = provider
        self.recorder = recorder
        self.url = url

    def clear(self) -> None:
        """Forget the requests and records so far."""
        self.provider.received.clear()
        self.recorder.clear()

    async def openai(self, script: Script, use: Callable[[openai.AsyncOpenAI], Awaitable[Any]]) -> Any:
        """Return the result of `use`; fail if it or the records differ between socket and process."""
        async with openai.AsyncOpenAI(base_url=f"{self.url}/openai/v1", api_key=KEY, max_retries=0) as client:
            return await self._same(script, lambda: use(client), lambda: use(self.bridge.openai()))

    async def anthropic(self, script: Script, use: Callable[[anthropic.AsyncAnthropic], Awaitable[Any]]) -> Any:
        async with anthropic.AsyncAnthropic(base_url=f"{self.url}/anthropic", api_key=KEY, max_retries=0) as client:
            return await self._same(script, lambda: use(client), lambda: use(self.bridge.anthropic()))

    @property
    def records(self) -> list[dict[str, Any]]:
        return [_comparable(record) for record in self.recorder.records]

    async def _same(
        self,
        script: Script,
        over_the_socket: Callable[[], Awaitable[Any]],
        in_process: Callable[[], Awaitable[Any]],
    ) -> Any:
        self.provider.script = script
        expected = await over_the_socket()
        asked, recorded = len(self.provider.received), len(self.recorder.records)
        self.provider.script = script
        result = await in_process()
        assert result == expected
        assert self.records[recorded:] == self.records[:recorded]
        assert len(self.records) == 2 * recorded
        bodies = [_without(received.json()) for received in self.provider.received]
        assert bodies[asked:] == bodies[:asked]
        return result


@asynccontextmanager
async def harness_of(**settings: Any) -> AsyncIterator[GatewayHarness]:
    """Yield a gateway that is served on a loopback port, with Alice's bridge to it."""
    provider, recorder = ScriptedProvider(Reply()), MemoryRecorder(max_items=10_000)
    both = {"api_key": CENTRAL, "max_retries": 0, "circuit_breaker": {"enabled": False}, **settings.pop("both", {})}
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(provider.serve())
        providers = {"openai": {"base_url": f"{upstream}/v1", **both}, "anthropic": {"base_url": upstream, **both}}
        given = {"providers": providers, "client_keys": {"alice": KEY}, "shutdown_grace": 0.2, **settings}
        aibridge = AIBridge(Settings(**given), recorder=recorder)
        app = FastAPI()
        app.include_router(aibridge.router, prefix="/ai")
        await stack.enter_async_context(aibridge.lifespan(app))
        server = await stack.enter_async_context(served(app))
        bridge = await stack.enter_async_context(aibridge.bridge(Principal("alice")))
        yield GatewayHarness(aibridge, bridge, provider, recorder, f"{server.url}/ai")


_OF_THEIR_OWN = {"id", "created", "previous_message_id", "started_at", "ended_at", "message_id", "duration"}


def _comparable(record: InterceptionRecord) -> dict[str, Any]:
    """Return the parts of a record that must be equal for two equal requests."""
    whole: dict[str, Any] = _without(dataclasses.asdict(record))
    return whole


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without(one) for key, one in value.items() if key not in _OF_THEIR_OWN}
    return [_without(one) for one in value] if isinstance(value, list) else value
