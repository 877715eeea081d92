"""The start of the tools of several servers, with the principal's credentials."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import SecretStr

from fastapi_aibridge import Principal
from fastapi_aibridge.errors import ConfigurationError
from fastapi_aibridge.mcp.builder import SettingsProxyBuilder
from fastapi_aibridge.mcp.connections import MCPConnections
from fastapi_aibridge.mcp.server import MCPServer
from fastapi_aibridge.settings import MCPServerSettings
from fastapi_aibridge.tools import NoTools

from .conftest import Start
from .scripted import ScriptedServer
from .servers import ToolServer

pytestmark = pytest.mark.anyio


async def test_a_failing_server_costs_its_own_tools_only(
    server: ToolServer, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """Servers start concurrently; a failure degrades the bridge and is logged once, without the server's text."""
    with ToolServer(token="right") as strict, ToolServer() as silent:
        silent.silent = True
        servers = (
            MCPServer(name="works", url=server.url),
            MCPServer(name="refuses", url=strict.url, headers={"Authorization": "Bearer wrong-secret"}),
            MCPServer(name="silent", url=silent.url),
        )
        with caplog.at_level(logging.INFO, logger="fastapi_aibridge"):
            for _ in range(2):
                tools = await start(*servers, connect_timeout=1.5)
                assert {tool.server for tool in tools.tools} == {"works"}
                assert tools.degraded
            strict.token = "wrong-secret"
            assert not (await start(*servers[:2])).degraded
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("fastapi_aibridge")]
    assert sorted(lines) == [
        "MCP server 'refuses' is left out: it answered with HTTP status 401",
        "MCP server 'refuses' works again",
        "MCP server 'silent' is left out: it did not connect within 1.5 s",
    ]


@pytest.mark.parametrize("key", [SecretStr("s3cret"), "s3cret", None])
async def test_the_session_key_goes_into_headers(
    server: ToolServer, start: Start, caplog: pytest.LogCaptureFixture, key: Any
) -> None:
    """`{session_key}` in a header value is the principal's session key.

    Without a session key the header is not sent, and the log says so.
    """
    box = MCPServer(name="box", url=server.url, headers={"X-Key": "v1 {session_key}."})
    tools = await start(box, who=Principal("alice", session_key=key))
    await tools.call("bmcp_box_echo", {})
    assert {headers.get("x-key") for headers in server.headers} == {"v1 s3cret." if key else None}
    assert ("'box'" in caplog.text and "X-Key is left out" in caplog.text) is (key is None)


async def test_a_key_that_no_header_may_have(server: ToolServer, start: Start) -> None:
    """A session key with a line break adds no header: the server is left out."""
    box = MCPServer(name="box", url=server.url, headers={"X-Key": "{session_key}"})
    tools = await start(box, who=Principal("alice", session_key="a\r\nX-Admin: 1"))
    assert tools.degraded
    assert not server.headers


async def test_an_expired_token_is_asked_for_again(start: Start) -> None:
    """A token is requested once, and again after a 401; if the new token is refused too, the call fails."""
    asked: list[str] = []

    async def provider() -> SecretStr:
        asked.append(f"token-{len(asked) + 1}")
        return SecretStr(asked[-1])

    with ToolServer(token="token-1", handshake=True) as server:
        tools = await start(MCPServer(name="box", url=server.url, token_provider=provider))
        assert (await tools.call("bmcp_box_echo", {"text": "1"})).text == "echo: 1"
        assert len(asked) == 1
        server.token = "token-2"
        assert (await tools.call("bmcp_box_echo", {"text": "2"})).text == "echo: 2"
        assert len(asked) == 2
        server.token = "never"
        refused = await tools.call("bmcp_box_echo", {"text": "3"})
        assert refused.text == "The tool could not be called: it answered with HTTP status 401."
        assert [arguments["text"] for _, arguments in server.calls] == ["1", "2"]


async def test_a_token_provider_that_fails(server: ToolServer, start: Start) -> None:
    """A token provider that raises disables its server, and its error text is not shown."""

    async def provider() -> str:
        raise RuntimeError("secret")

    tools = await start(MCPServer(name="box", url=server.url, token_provider=provider))
    assert tools.degraded


async def test_redirects_are_not_followed(server: ToolServer, start: Start) -> None:
    """A server that redirects is left out, because credentials are sent to the configured URL only."""
    with ToolServer() as elsewhere:
        server.redirect = elsewhere.url
        tools = await start(server)
        assert tools.degraded
        assert not elsewhere.headers


async def test_an_apps_own_servers(server: ToolServer, start: Start) -> None:
    """A builder returns each principal's servers, synchronously or not; if it fails, the bridge has no tools."""

    class Builder:
        def build(self, principal: Principal) -> Sequence[MCPServer]:
            return [MCPServer(name=principal.initiator_id, url=server.url, tool_allow="^echo$")]

    class SlowBuilder:
        async def build(self, principal: Principal) -> Sequence[MCPServer]:
            return Builder().build(principal)

    class Broken:
        def build(self, principal: Principal) -> Sequence[MCPServer]:
            raise RuntimeError("secret")

    for builder in (Builder(), SlowBuilder()):
        tools = await start(builder=builder, who=Principal("bob"))
        assert [tool.name for tool in tools.tools] == ["bmcp_bob_echo"]
    broken = await start(builder=Broken())
    assert (broken.tools, broken.degraded) == ((), True)


async def test_a_builder_that_hangs(server: ToolServer, start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """A builder has a time limit, even if it ignores cancellation; afterwards the bridge has no tools."""
    let_go, gone = asyncio.Event(), asyncio.Event()

    class Hanging:
        async def build(self, principal: Principal) -> Sequence[MCPServer]:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await let_go.wait()
            gone.set()
            return [MCPServer(name="box", url=server.url)]

    tools = await asyncio.wait_for(start(builder=Hanging(), build_timeout=0.1), 30)
    assert (tools.tools, tools.degraded) == ((), True)
    assert "took longer than 0.1 s: the bridge has no tools" in caplog.text
    let_go.set()
    await gone.wait()


@pytest.mark.parametrize("built", [None, 7, ["box"], [None], {"a": 1}, [MCPServer(name=None, url="x")]])  # type: ignore[arg-type]
async def test_a_builder_that_answers_nonsense(start: Start, built: Any) -> None:
    """A builder that does not return a list of servers leaves the bridge without tools, but the bridge starts."""

    class Odd:
        def build(self, principal: Principal) -> Sequence[MCPServer]:
            return built  # type: ignore[no-any-return]

    tools = await start(builder=Odd())
    assert (tools.tools, tools.degraded) == ((), True)


async def test_a_builder_that_is_cancelled_from_within(start: Start) -> None:
    """A builder's own cancellation is not taken for the caller's."""

    class Cancelled:
        async def build(self, principal: Principal) -> Sequence[MCPServer]:
            raise asyncio.CancelledError

    assert (await start(builder=Cancelled())).degraded


async def test_one_server_that_makes_no_sense(server: ToolServer, start: Start) -> None:
    """An invalid pattern or URL disables its own server only."""
    odd = [
        MCPServer(name="pattern", url=server.url, tool_allow="("),
        MCPServer(name="scheme", url="ftp://127.0.0.1/x"),
        MCPServer(name="port", url="http://127.0.0.1:99999999/"),
        MCPServer(name="header", url=server.url, headers={"X y": "a"}),
        MCPServer(name="number", url=server.url, headers={"X": 7}),  # type: ignore[dict-item]
    ]
    tools = await start(*odd, MCPServer(name="box", url=server.url))
    assert tools.degraded
    assert {tool.server for tool in tools.tools} == {"box"}


async def test_credentials_in_a_url(start: Start) -> None:
    """User and password of a URL become a header."""
    async with ScriptedServer() as server:
        await start(MCPServer(name="box", url=server.mcp.replace("//", "//us%40er:p%3Aw@") + "?a=b c&d=\u00fc"))
    assert {one.header("authorization") for one in server.requests} == {"Basic dXNAZXI6cDp3"}
    assert {one.path for one in server.requests} == {"/mcp?a=b%20c&d=%C3%BC"}


async def test_the_servers_of_the_settings(server: ToolServer, start: Start) -> None:
    """The settings' servers, with their patterns and headers, are the same for all principals."""
    settings = MCPServerSettings.model_validate(
        {"url": server.url, "headers": {"X-Key": "{session_key}"}, "tool_allow": "^(echo|fail)$", "tool_deny": "fail"}
    )
    tools = await start(builder=SettingsProxyBuilder({"box": settings}), who=Principal("alice", session_key="k"))
    assert [tool.name for tool in tools.tools] == ["bmcp_box_echo"]
    assert server.headers[0]["x-key"] == "k"


async def test_principals_share_tools_but_nothing_else(server: ToolServer, start: Start) -> None:
    """Equal tools of different principals are one object in memory."""
    one, other = await start(server), await start(server, who=Principal("bob"))
    assert all(mine is theirs for mine, theirs in zip(one.tools, other.tools, strict=True))
    assert one.tools is one.tools


async def test_no_servers_are_no_tools() -> None:
    """A bridge without servers has an empty list of tools and needs no connections."""
    none = NoTools()
    await none.start()
    assert (none.tools, none.degraded) == ((), False)
    assert (await none.call("x", {})).is_error
    await none.aclose()


async def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the mcp library the error says what to install."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"pip install '.*\[mcp\]'"):
        async with MCPConnections():
            pass


def test_the_library_is_loaded_when_it_is_needed() -> None:
    """Importing the package does not import mcp."""
    code = "import sys, fastapi_aibridge.mcp; sys.exit('mcp' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
