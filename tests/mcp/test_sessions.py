"""The life of sessions with servers: opened, dropped, renewed, ended."""

from __future__ import annotations

import asyncio

import pytest

from fastapi_aibridge import Principal
from fastapi_aibridge.mcp.connections import MCPConnections
from fastapi_aibridge.mcp.mcp_tools import MCPTools
from fastapi_aibridge.mcp.server import MCPServer
from tests.loopback import free_port
from tests.waiting import until

from .conftest import Start
from .servers import ToolServer

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("status", [404, 400])
async def test_a_dropped_session_is_renewed(
    handshake_server: ToolServer, start: Start, connections: MCPConnections, status: int
) -> None:
    """A session that the server has dropped is renewed once for all concurrent calls, and none fails."""
    handshake_server.unknown_status = status
    tools = await start(handshake_server)
    handshake_server.drop_sessions()
    answers = await asyncio.gather(*(tools.call("bmcp_box_echo", {"text": str(n)}) for n in range(20)))
    assert [answer.text for answer in answers] == [f"echo: {n}" for n in range(20)]
    assert handshake_server.opened == 2
    assert len(handshake_server.calls) == 20
    stats = connections.stats()
    assert (stats.sessions_open, stats.sessions_opened, stats.sessions_renewed) == (1, 2, 1)


@pytest.mark.parametrize("handshake", [True, False])
async def test_a_restarted_server_is_found_again(start: Start, handshake: bool) -> None:
    """Calls to a server that has restarted, or is about to, succeed."""
    with ToolServer(handshake=handshake) as server:
        tools = await start(server)
        await asyncio.to_thread(server.down)
        call = asyncio.create_task(tools.call("bmcp_box_echo", {"text": "hi"}))
        await asyncio.sleep(0.2)  # the call meets a closed port
        await asyncio.to_thread(server.up)
        assert (await call).text == "echo: hi"
        await asyncio.to_thread(server.down)
        await asyncio.to_thread(server.up)
        assert (await tools.call("bmcp_box_echo", {"text": "again"})).text == "echo: again"


async def test_a_call_is_not_executed_twice(handshake_server: ToolServer, start: Start) -> None:
    """A call whose connection breaks while the tool runs is an error, because the tool may not be safe to repeat."""
    tools = await start(handshake_server)
    call = asyncio.create_task(tools.call("bmcp_box_slow", {}))
    await until(lambda: handshake_server.running)
    await breaking(tools)
    answer = await call
    assert answer.is_error
    assert answer.text == "The tool could not be called: the connection broke off."
    assert [name for name, _ in handshake_server.calls] == ["slow"]


async def test_a_call_that_may_be_repeated_is(handshake_server: ToolServer, start: Start) -> None:
    """An idempotent tool is run again once if its connection breaks."""
    tools = await start(handshake_server)
    call = asyncio.create_task(tools.call("bmcp_box_safe_to_repeat", {"text": "hi"}))
    await until(lambda: handshake_server.running == 1)
    await breaking(tools)
    await until(lambda: len(handshake_server.calls) == 2)
    handshake_server.gate.set()
    assert (await call).text == "safe_to_repeat: hi"
    assert len(handshake_server.calls) == 2


async def test_an_answer_in_two_streams_is_read_to_its_end(start: Start) -> None:
    """A server may end the stream of a response early, and the client resumes it."""
    with ToolServer(handshake=True, resumable=True) as server:
        tools = await start(server)
        assert (await tools.call("bmcp_box_pausing", {"text": "hi"})).text == "pausing: hi"
        assert server.calls == [("pausing", {"text": "hi"})]
        assert server.methods.count("GET") >= 1


async def breaking(tools: MCPTools) -> None:
    """Reset every open connection."""
    pools = tools._connections.http._client._pools
    assert pools is not None
    for pool in pools._pools.values():
        for connection in pool._open - set(pool._free):
            assert connection._transport is not None
            connection._transport.abort()


async def test_closing_ends_sessions_in_time(start: Start) -> None:
    """Sessions on all servers end at once, and one that does not respond delays the close by two seconds at most."""
    with ToolServer(handshake=True) as quick, ToolServer(handshake=True) as stuck:
        tools = await start(MCPServer(name="a", url=quick.url), MCPServer(name="b", url=stuck.url))
        assert (len(quick.open_sessions), len(stuck.open_sessions)) == (1, 1)
        stuck.silent = True
        began = asyncio.get_running_loop().time()
        await tools.aclose()
        assert asyncio.get_running_loop().time() - began < 3.5
        assert quick.methods[-1] == "DELETE"
        assert not quick.open_sessions
        assert (await tools.call("bmcp_a_echo", {})).is_error


async def test_closing_from_another_task_while_starting(connections: MCPConnections) -> None:
    """Closing during the start, or before it, leaves no session and no task."""
    with ToolServer(handshake=True) as server:
        servers = [MCPServer(name="box", url=server.url)]
        for pauses in range(12):
            tools = MCPTools(servers, Principal("alice"), connections)
            starting = asyncio.create_task(tools.start())
            for _ in range(pauses * 5):
                await asyncio.sleep(0)
            starting.cancel()
            await asyncio.create_task(tools.aclose())
            await asyncio.wait((starting,))
            assert starting.cancelled() or pauses  # a fast server may have completed it
        await MCPTools(servers, Principal("alice"), connections).aclose()
        assert not server.open_sessions
        assert connections.stats().sessions_open == 0
        await until(lambda: not connections.working)


async def test_idle_sessions_hold_no_task(
    handshake_server: ToolServer, start: Start, connections: MCPConnections
) -> None:
    """An idle session needs no task, and connections are shared."""
    for _ in range(5):
        await start(handshake_server)
    await until(lambda: not connections.working)
    assert len(connections.http) <= 2  # a response may still be ending when the next request is sent
    assert handshake_server.methods.count("GET") == 0


async def test_a_known_server_is_not_probed_again(handshake_server: ToolServer, start: Start) -> None:
    """A server's need for the handshake is learned once for all principals."""
    await start(handshake_server)
    handshake_server.methods.clear()
    await start(handshake_server)
    assert handshake_server.methods == ["POST"] * 3


async def test_a_server_that_moves_to_the_later_protocol_is_found(handshake_server: ToolServer, start: Start) -> None:
    """The learned protocol of a server is dropped when it no longer works."""
    await start(handshake_server)
    await asyncio.to_thread(handshake_server.down)
    handshake_server.handshake = False
    await asyncio.to_thread(handshake_server.up)
    tools = await start(handshake_server)
    assert (await tools.call("bmcp_box_echo", {"text": "hi"})).text == "echo: hi"


async def test_a_port_that_nobody_listens_on(start: Start, connections: MCPConnections) -> None:
    """A server that cannot be reached degrades the tools and is counted."""
    tools = await start(MCPServer(name="gone", url=f"http://127.0.0.1:{free_port()}/mcp"))
    assert (tools.tools, tools.degraded) == ((), True)
    assert connections.stats().failures == {"gone": 1}
