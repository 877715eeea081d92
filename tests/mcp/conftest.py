"""Fixtures: shared connections, and one principal's tools, which are closed after the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from fastapi_aibridge import Principal
from fastapi_aibridge.mcp.builder import MCPProxyBuilder
from fastapi_aibridge.mcp.connections import MCPConnections
from fastapi_aibridge.mcp.mcp_tools import MCPTools
from fastapi_aibridge.mcp.server import MCPServer

from .servers import ToolServer

Start = Callable[..., Awaitable[MCPTools]]


@pytest.fixture
def server() -> Iterator[ToolServer]:
    with ToolServer() as running:
        yield running


@pytest.fixture
def handshake_server() -> Iterator[ToolServer]:
    """A server that does not know the later protocol and keeps sessions."""
    with ToolServer(handshake=True) as running:
        yield running


@pytest.fixture
async def connections() -> AsyncIterator[MCPConnections]:
    async with MCPConnections() as shared:
        yield shared


@pytest.fixture
async def start(connections: MCPConnections) -> AsyncIterator[Start]:
    """A function that starts the tools of servers, or of complete `MCPServer`s, for one principal."""
    started: list[MCPTools] = []

    async def start(
        *servers: ToolServer | MCPServer,
        builder: MCPProxyBuilder | None = None,
        who: Principal | None = None,
        **limits: Any,
    ) -> MCPTools:
        listed = [one if isinstance(one, MCPServer) else MCPServer(name="box", url=one.url) for one in servers]
        tools = MCPTools(builder or listed, who or Principal("alice"), connections, **limits)
        started.append(tools)
        await tools.start()
        return tools

    yield start
    for tools in started:
        await tools.aclose()
