"""Restarted servers, which report an unknown session in many ways."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from fastapi_aibridge import Principal
from fastapi_aibridge.mcp.server import MCPServer

from .conftest import Start
from .scripted import Answer, Message, ScriptedServer, error, result, stream, tool, whole

pytestmark = pytest.mark.anyio

WAYS: dict[str, Answer] = {
    "404, text": whole(b"gone", 404, ()),
    "404, error": whole(error(None, -32001, "Session not found"), 404),
    "410": whole(b"", 410, ()),
    "400, no session": whole(error(None, -32000, "Bad Request: No valid session ID provided"), 400),
    "400, not initialized": whole(error(None, -32000, "Bad Request: Server not initialized"), 400),
    "400, text": whole(b"Invalid or missing session ID", 400, ()),
    "401, text": whole(b"Unauthorized: Session not found", 401, ()),
    "403": whole(b"", 403, ()),
    "409": whole(b"", 409, ()),
    "422": whole({"detail": "unexpected message"}, 422),
    "500, text": whole(b"Internal Server Error", 500, ()),
    "500, error": whole(error(None, -32603, "Internal error"), 500),
    "503": whole(b"", 503, ()),
    "200, error": whole(error(None, -32600, "Session terminated")),
    "200, invalid parameters": whole(error(None, -32602, "Invalid request parameters")),
    "200, web page": whole(b"<html>Please log in</html>", 200, (("Content-Type", "text/html"),)),
    "302": whole(b"", 302, (("Location", "/login"),)),
}


@pytest.mark.parametrize("way", WAYS)
async def test_a_session_is_renewed_within_the_call(start: Start, way: str) -> None:
    """However a server reports a lost session, the call is repeated in a new one and succeeds."""
    async with ScriptedServer() as server:
        server.on_lost = lambda _: WAYS[way]
        tools = await start(MCPServer(name="box", url=server.mcp))
        for restarts in range(2):
            assert [(await tools.call("bmcp_box_look", {})).text for _ in range(2)] == ["ok", "ok"]
            assert server.opened == 1 + restarts
            server.sessions.clear()


@pytest.mark.parametrize(
    "answer",
    [
        lambda message: whole(error(message["id"], -32602, "no such city")),
        lambda _: whole(b"tool crashed", 500, ()),
        lambda _: whole(error(None, -32000, "session of the game is over"), 400),
    ],
)
async def test_a_tool_that_fails_is_no_lost_session(start: Start, answer: object) -> None:
    """After a failed call, a session that still lists its tools is kept, and the tool is not run again."""
    async with ScriptedServer() as server:
        server.on_call = answer  # type: ignore[assignment]
        tools = await start(MCPServer(name="box", url=server.mcp))
        for _ in range(3):
            assert (await tools.call("bmcp_box_look", {})).is_error
        assert len(server.calls) == 3
        assert server.opened == 1


@pytest.mark.parametrize("repeatable", [True, False])
async def test_only_an_idempotent_tool_that_took_its_server_down_is_run_again(start: Start, repeatable: bool) -> None:
    """After a 502 with a lost session, only an idempotent tool is run again; the next call has a new session."""
    async with ScriptedServer(tool(annotations={"idempotentHint": repeatable})) as server:

        def crash(_: Message) -> Answer | None:
            if len(server.calls) > 1:
                return None
            server.sessions.clear()
            return whole(b"bad gateway", 502, ())

        server.on_call = crash
        tools = await start(MCPServer(name="box", url=server.mcp))
        first = await tools.call("bmcp_box_look", {})
        assert first.is_error is not repeatable
        assert len(server.calls) == (2 if repeatable else 1)
        assert (await tools.call("bmcp_box_look", {})).text == "ok"
        assert server.opened == 2


async def test_a_session_is_renewed_once(start: Start) -> None:
    """A session is renewed only once for a server that loses each one."""
    async with ScriptedServer() as server:
        tools = await start(MCPServer(name="box", url=server.mcp))
        server.before = lambda _, message: whole(b"", 404, ()) if message.get("method") == "tools/call" else None
        assert (await tools.call("bmcp_box_look", {})).is_error
        assert server.opened == 2


async def test_cookies_belong_to_one_session(start: Start) -> None:
    """A load balancer's cookie is sent with each request of its session and with no other principal's."""
    async with ScriptedServer() as server:
        server.headers = (("Set-Cookie", "route=one; Path=/; HttpOnly"), ("Set-Cookie", "bad name=x"))
        alice = await start(MCPServer(name="box", url=server.mcp))
        server.headers = (("Set-Cookie", "route=two; Path=/"), ("Set-Cookie", "gone=1; Max-Age=0"))
        bob = await start(MCPServer(name="box", url=server.mcp, headers={"Cookie": "own=1"}), who=Principal("bob"))
        server.headers = ()
        await alice.call("bmcp_box_look", {})
        await bob.call("bmcp_box_look", {})
        carol = await start(MCPServer(name="box", url=server.mcp), who=Principal("carol"))
        await carol.call("bmcp_box_look", {})
        server.sessions.clear()
        await alice.call("bmcp_box_look", {})
    sent = [one.header("cookie") for one in server.requests if b'"tools/call"' in one.body]
    assert sent == ["route=one", "own=1; route=two", None, "route=one", None]
    opened = [one.header("cookie") for one in server.requests if b'"initialize"' in one.body]
    assert opened == [None, "own=1", None, None]


async def test_a_slow_start_is_asked_again(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that was slow at first, and whose refusal of the handshake names the later protocol, is probed again."""
    monkeypatch.setattr("fastapi_aibridge.mcp.negotiation.PROBE_TIMEOUT", 0.5)
    async with ScriptedServer() as server:
        asked = []

        def later(_: object, message: Message) -> Answer:
            number, method = message.get("id"), message.get("method")
            asked.append(method)
            if method == "initialize":
                data = {"supported": ["2026-07-28"], "requested": "2025-11-25"}
                return whole(error(number, -32022, "Unsupported protocol version", data), 400)
            if method == "server/discover":
                if asked.count(method) == 1:
                    return never()
                return whole(result(number, {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}))
            value = {"tools": [tool()]} if method == "tools/list" else {"content": "ok"}
            return stream(b"data: " + whole(result(number, value)).partition(b"\r\n\r\n")[2] + b"\n\n")

        server.before = later
        tools = await start(MCPServer(name="box", url=server.mcp))
        assert (await tools.call("bmcp_box_look", {})).text == "ok"
        assert asked == ["server/discover", "initialize", "server/discover", "tools/list", "tools/call"]


async def never() -> AsyncIterator[bytes]:
    """A response that does not arrive."""
    await asyncio.sleep(5)
    yield b""
