"""Calling tools of real servers, of both protocol eras."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest

from fastapi_aibridge.mcp.connections import MCPConnections
from fastapi_aibridge.mcp.server import MCPServer
from fastapi_aibridge.tools import Audio, Image, Text
from tests.waiting import until

from .conftest import Start
from .servers import BEEP, PIXEL, ToolServer

pytestmark = pytest.mark.anyio

MODES: dict[str, dict[str, bool]] = {
    "later": {},
    "later-json": {"json_response": True},
    "handshake": {"handshake": True},
    "handshake-json": {"handshake": True, "json_response": True},
    "handshake-stateless": {"handshake": True, "stateless": True},
    "handshake-stateless-json": {"handshake": True, "stateless": True, "json_response": True},
    "handshake-announcing": {"handshake": True, "announcing": True},
}


@pytest.fixture(params=list(MODES.values()), ids=list(MODES))
def any_server(request: pytest.FixtureRequest) -> Iterator[ToolServer]:
    with ToolServer(**request.param) as running:
        yield running


async def test_tools_are_listed_and_called(any_server: ToolServer, start: Start) -> None:
    """A server's tools are listed in order under their injected names and can be called; its sessions are ended."""
    tools = await start(any_server)
    assert [tool.name for tool in tools.tools] == sorted(f"bmcp_box_{tool.tool}" for tool in tools.tools)
    echo = next(tool for tool in tools.tools if tool.tool == "echo")
    assert (echo.server, echo.description, echo.input_schema) == ("box", "The tool echo.", any_server.schema)
    answer = await tools.call("bmcp_box_echo", {"text": "hi"})
    assert (answer.content, answer.is_error) == ((Text("echo: hi"),), False)
    assert 0 < (answer.duration or 0) < 5
    assert any_server.calls == [("echo", {"text": "hi"})]
    await tools.aclose()
    assert not any_server.open_sessions
    assert not tools.degraded


async def test_fifty_calls_run_at_once(any_server: ToolServer, start: Start) -> None:
    """Fifty concurrent calls on one session each get their own result."""
    tools = await start(any_server)
    calls = [asyncio.create_task(tools.call("bmcp_box_slow", {"text": str(n)})) for n in range(50)]
    await until(lambda: any_server.running == 50)
    any_server.gate.set()
    answers = [await call for call in calls]
    assert [answer.text for answer in answers] == [f"slow: {n}" for n in range(50)]


async def test_pages_are_all_read(start: Start) -> None:
    """A list of tools that comes in pages is read to its end."""
    with ToolServer(page_size=3) as paged, ToolServer(page_size=3, handshake=True) as older:
        assert len((await start(paged)).tools) == 10
        assert len((await start(older)).tools) == 10


async def test_every_kind_of_content_arrives(server: ToolServer, start: Start) -> None:
    """Images and sounds are kept; structured content, resources and links become text."""
    tools = await start(server)
    picture = await tools.call("bmcp_box_picture", {})
    assert picture.content == (Text("Look:"), Image(PIXEL, "image/png"), Audio(BEEP, "audio/wav"))
    assert (await tools.call("bmcp_box_structured", {})).content == (Text('{"degrees":22}'),)
    assert (await tools.call("bmcp_box_resources", {})).content == (
        Text("embedded"),
        Image(PIXEL, "image/png"),
        Text("[Resource file:///a.zip, application/zip, 15 bytes, is not shown.]"),
        Text("[Resource b, file:///b.txt: Another file]"),
    )


async def test_failures_become_error_results(any_server: ToolServer, start: Start) -> None:
    """A tool that fails, one that raises in the server, and one that does not exist give an error."""
    tools = await start(any_server)
    failed = await tools.call("bmcp_box_fail", {})
    assert (failed.content, failed.is_error) == ((Text("it failed"),), True)
    assert (await tools.call("bmcp_box_boom", {})).is_error
    unknown = await tools.call("bmcp_box_nothing", {})
    assert (unknown.text, unknown.is_error) == ("There is no tool named 'bmcp_box_nothing'.", True)


async def test_large_results_are_cut(any_server: ToolServer, start: Start) -> None:
    """A result of megabytes is cut to the limit, with a note; a far larger one is an error."""
    tools = await start(any_server)
    huge = await tools.call("bmcp_box_huge", {"size": 2_000_000})
    assert next(len(part.text) for part in huge.content if isinstance(part, Text)) == 512 * 1024
    assert huge.text.endswith("2951424 bytes of text are left out.]")
    beyond = await tools.call("bmcp_box_huge", {"size": 9_000_000})
    assert beyond.is_error
    assert "larger than 16777216 bytes" in beyond.text


async def test_a_slow_tool_is_cut_off(any_server: ToolServer, start: Start) -> None:
    """A tool that takes too long is an error, and its server is told to stop it if the protocol allows that."""
    tools = await start(any_server, call_timeout=0.3)
    slow = await tools.call("bmcp_box_slow", {})
    assert (slow.text, slow.is_error) == ("The tool did not answer within 0.3 seconds.", True)
    if any_server.cancels:
        await until(lambda: any_server.cancelled == 1 and not any_server.running)


async def test_cancelling_a_call_cancels_the_tool(any_server: ToolServer, start: Start) -> None:
    """A cancelled call ends the tool's run on the server, and the session continues."""
    tools = await start(any_server)
    call = asyncio.create_task(tools.call("bmcp_box_slow", {}))
    await until(lambda: any_server.running)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    if any_server.cancels:
        await until(lambda: any_server.cancelled == 1 and not any_server.running)
    assert not (await tools.call("bmcp_box_echo", {})).is_error


async def test_patterns_choose_the_tools(server: ToolServer, start: Start) -> None:
    """Allow and deny patterns are searched in the tool's own name, and deny takes precedence."""
    chosen = MCPServer(name="box", url=server.url, tool_allow="^(echo|fail|b)", tool_deny="ai")
    tools = await start(chosen)
    assert [tool.tool for tool in tools.tools] == ["boom", "echo"]
    assert (await tools.call("bmcp_box_fail", {})).is_error
    assert not server.calls


async def test_nothing_secret_is_logged(
    server: ToolServer, start: Start, connections: MCPConnections, caplog: pytest.LogCaptureFixture
) -> None:
    """No log line of any level has a header, session id, token, argument or result."""
    caplog.set_level(logging.DEBUG)

    async def token() -> str:
        return "tok-secret"

    with ToolServer(handshake=True) as older:
        tools = await start(
            MCPServer(name="a", url=server.url + "?key=url-secret", token_provider=token),
            MCPServer(name="b", url=older.url, headers={"X-Key": "header-secret"}),
            MCPServer(name="c", url="http://user:url-secret@127.0.0.1:1/mcp"),
        )
        await tools.call("bmcp_a_echo", {"text": "prompt-secret"})
        await tools.call("bmcp_b_boom", {"text": "prompt-secret"})
        secrets = ["tok-secret", "header-secret", "url-secret", "prompt-secret", *older.open_sessions]
        lines = [record.getMessage() for record in caplog.records if not record.name.startswith("mcp.server")]
        lines = [line for line in lines if "127.0.0.1:" not in line or "HTTP/1.1" not in line]
    assert [line for line in lines if any(secret in line for secret in secrets)] == []
