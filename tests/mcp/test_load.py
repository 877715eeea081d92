"""Many bridges and calls while servers restart."""

from __future__ import annotations

import asyncio

import pytest

from fastapi_aibridge import Principal
from fastapi_aibridge.mcp.connections import MCPConnections
from fastapi_aibridge.mcp.mcp_tools import MCPTools
from fastapi_aibridge.mcp.server import MCPServer
from tests.waiting import until

from .servers import ToolServer

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("handshake", [True, False])
async def test_restarts_under_load(connections: MCPConnections, handshake: bool) -> None:
    """While a server restarts repeatedly, every call ends, few fail, and none runs twice."""
    with ToolServer(handshake=handshake) as server:
        bridges = [
            MCPTools([MCPServer(name="box", url=server.url)], Principal(f"user-{n}"), connections) for n in range(10)
        ]
        await asyncio.gather(*(tools.start() for tools in bridges))
        going = True
        answers: list[tuple[str, bool]] = []

        async def use(tools: MCPTools, who: int) -> None:
            number = 0
            while going:
                number += 1
                text = f"{who}.{number}"
                answer = await tools.call("bmcp_box_echo", {"text": text})
                answers.append((text, answer.is_error))
                assert answer.is_error or answer.text == f"echo: {text}"
                await asyncio.sleep(0.005)

        users = [asyncio.create_task(use(tools, who)) for who, tools in enumerate(bridges)]
        for restart in range(1, 5):
            await until(lambda wanted=restart * 200: len(answers) > wanted)  # type: ignore[misc]
            await asyncio.to_thread(server.down)
            await asyncio.to_thread(server.up)
        await until(lambda: len(answers) > 1000)
        going = False
        await asyncio.gather(*users)

        failed = sum(is_error for _, is_error in answers)
        assert failed <= 4 * len(bridges)  # calls that ran when the server was killed
        ran = [arguments["text"] for _, arguments in server.calls]
        assert len(ran) == len(set(ran))
        await asyncio.gather(*(tools.aclose() for tools in bridges))
        assert not server.open_sessions
        assert connections.stats().sessions_open == 0


async def test_many_bridges_leave_nothing_behind(connections: MCPConnections) -> None:
    """A hundred bridges that start and close at once leave no session or task, and no more sockets than calls."""
    with ToolServer(handshake=True) as server:
        servers = [MCPServer(name="box", url=server.url)]
        bridges = [MCPTools(servers, Principal(f"user-{n}"), connections, connect_timeout=60) for n in range(100)]
        await asyncio.gather(*(tools.start() for tools in bridges))
        assert not any(tools.degraded for tools in bridges)
        assert len(server.open_sessions) == 100
        await asyncio.gather(*(tools.aclose() for tools in bridges))
        assert not server.open_sessions
        assert server.opened == 100
        await until(lambda: not connections.working)
