"""MCP sessions in the pool's bridges: the session key that they send, and their spans."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

import pytest
from fastapi import FastAPI
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from fastapi_aibridge import AIBridge, MCPServer, MemoryRecorder, Principal, Settings

from .servers import ToolServer

pytestmark = pytest.mark.anyio


def bridge_to(server: ToolServer) -> AIBridge:
    servers = {"box": {"url": server.url, "headers": {"X-Key": "{session_key}"}}}
    settings = Settings.model_validate({"mcp_servers": servers, "shutdown_grace": 0})
    return AIBridge(settings, recorder=MemoryRecorder())


async def test_a_new_session_key_is_used_at_once(server: ToolServer) -> None:
    """A new session key is sent to MCP servers at once, even if another caller holds the bridge of the old one."""

    def shown() -> set[str | None]:
        seen = {headers.get("x-key") for headers in server.headers}
        server.headers.clear()
        return seen

    aibridge = bridge_to(server)
    async with aibridge.bridge(Principal("ann", session_key="s-1")) as old:
        assert shown() == {"s-1"}
        async with aibridge.bridge(Principal("ann", session_key="s-2")) as new:
            assert shown() == {"s-2"}
            assert old.tools == new.tools != ()
            async with aibridge.bridge(Principal("ann", session_key="s-2", metadata={"n": 1})) as again:
                assert again.principal.metadata == {"n": 1}
            assert shown() == set()


class Selfish:
    """A list of MCP servers, or a token provider, that acquires the very bridge that waits for it."""

    aibridge: AIBridge

    def __init__(self, *, token: bool) -> None:
        self._token = token

    async def build(self, principal: Principal) -> Sequence[MCPServer]:
        async def token() -> str:
            async with self.aibridge.bridge(principal):
                return "t"

        return [MCPServer(name="box", url="http://127.0.0.1:9/mcp", token_provider=token if self._token else None)] * (
            self._token or await token() == ""
        )


@pytest.mark.parametrize("runs", [True, False], ids=["app", "script"])
@pytest.mark.parametrize("token", [False, True], ids=["list", "token"])
async def test_what_waits_for_its_own_bridge(caplog: pytest.LogCaptureFixture, token: bool, runs: bool) -> None:
    """A builder that acquires its own bridge gets an error at once, and the log says why."""
    builder = Selfish(token=token)
    builder.aibridge = aibridge = AIBridge(Settings(), recorder=MemoryRecorder(), mcp=builder)
    async with AsyncExitStack() as stack:
        if runs:
            await stack.enter_async_context(aibridge.lifespan(FastAPI()))
        async with asyncio.timeout(5), aibridge.bridge(Principal("ann")) as bridge:
            assert bridge.tools == ()
    assert "'ann' is acquired while it is being built" in caplog.text


async def test_connections_are_spans_of_the_principal(server: ToolServer, spans: InMemorySpanExporter) -> None:
    """Acquire, build and connection are nested spans with the principal's ids and without secrets."""
    async with bridge_to(server).bridge(Principal("ann", "key-1", "s3cret")):
        pass
    # The test's server runs in this process and has spans of its own.
    found = {span.name: span for span in spans.get_finished_spans()}
    acquire, build, connect = (
        found[name] for name in ("CachedBridgePool.Acquire", "CachedBridgePool.Build", "MCP.Connect")
    )
    assert build.parent is not None
    assert connect.parent is not None
    assert (build.parent.span_id, connect.parent.span_id) == (acquire.context.span_id, build.context.span_id)
    for span in (acquire, build, connect):
        attributes = dict(span.attributes or {})
        assert (attributes.pop("aibridge.initiator_id"), attributes.pop("aibridge.api_key_id")) == ("ann", "key-1")
        assert attributes == ({"aibridge.mcp_server": "box"} if span is connect else {})
    assert "s3cret" not in "".join(span.to_json() for span in spans.get_finished_spans())
