"""Lists of tools that change while bridges hold them."""

from __future__ import annotations

import asyncio

import pytest

from fastapi_aibridge import Principal
from fastapi_aibridge.mcp import listener
from fastapi_aibridge.mcp import session as sessions
from fastapi_aibridge.mcp.connections import MCPConnections
from fastapi_aibridge.mcp.mcp_tools import MCPTools
from fastapi_aibridge.mcp.server import MCPServer
from tests.waiting import until

from .conftest import Start
from .servers import ToolServer

pytestmark = pytest.mark.anyio


def names(tools: MCPTools) -> set[str]:
    return {tool.tool for tool in tools.tools}


async def test_an_announced_change_is_seen_with_sessions(start: Start) -> None:
    """After an announced change in a session the list is read again, and unchanged tools stay the same objects."""
    with ToolServer(handshake=True, announcing=True) as server:
        tools = await start(server)
        before = tools.tools
        await until(lambda: server.listeners == 1)
        await tools.call("bmcp_box_grow", {})
        await until(lambda: "extra_0" in names(tools))
        assert tools.tools[0] is before[0]
        assert (await tools.call("bmcp_box_extra_0", {"text": "hi"})).text == "extra_0: hi"


async def test_an_announced_change_is_seen_without_sessions(start: Start) -> None:
    """By the later protocol, clients subscribe to changes and read the list again."""
    with ToolServer(announcing=True) as server:
        tools = await start(server)
        await until(lambda: server.listeners == 1)
        server.extra.append("new")
        server.announce()
        await until(lambda: "new" in names(tools))


async def test_tools_that_go_away_are_gone(start: Start) -> None:
    """A tool that is no longer in the list cannot be called."""
    with ToolServer(announcing=True) as server:
        server.extra.append("old")
        tools = await start(server)
        await until(lambda: server.listeners == 1)
        server.extra.clear()
        server.announce()
        await until(lambda: "old" not in names(tools))
        assert (await tools.call("bmcp_box_old", {})).is_error


@pytest.mark.parametrize("handshake", [True, False])
async def test_a_listener_comes_back(start: Start, monkeypatch: pytest.MonkeyPatch, handshake: bool) -> None:
    """After a server's restart the list is read again in a new session, and announcements work again."""
    monkeypatch.setattr(listener, "PAUSES", (0.05, 0.2))
    with ToolServer(handshake=handshake, announcing=True) as server:
        tools = await start(server)
        await until(lambda: server.listeners == 1)
        await asyncio.to_thread(server.down)
        server.extra.append("new")
        await asyncio.to_thread(server.up)
        await until(lambda: "new" in names(tools))
        await until(lambda: server.listeners == 1)
        await tools.aclose()
        await until(lambda: server.listeners == 0)


async def test_listeners_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a number of standing streams, sessions check an old list when they are used."""
    with ToolServer(handshake=True, announcing=True) as server:
        async with MCPConnections(listeners=2) as connections:
            bridges = [
                MCPTools([MCPServer(name="box", url=server.url)], Principal(who), connections) for who in "abcde"
            ]
            for tools in bridges:
                await tools.start()
            await until(lambda: server.listeners == 2)
            assert connections.stats().listeners == 2
            server.extra.append("new")
            assert "new" not in names(bridges[-1])
            monkeypatch.setattr(sessions, "STALE_AFTER", -1.0)
            await until(lambda: "new" in names(bridges[-1]))
            for tools in bridges:
                await tools.aclose()
            await until(lambda: connections.stats().listeners == 0)
            assert server.listeners <= 2
        await until(lambda: server.listeners == 0)
        assert not server.open_sessions
