"""Servers that deviate from the specification: a deviation affects only itself."""

from __future__ import annotations

import base64
import logging
from typing import Any

import pytest

from fastapi_aibridge.mcp.server import MCPServer
from fastapi_aibridge.tools import Audio, Image, Text

from .conftest import Start
from .scripted import ScriptedServer, error, result, tool, whole

pytestmark = pytest.mark.anyio

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n and more").decode()
JPEG = base64.b64encode(b"\xff\xd8\xff\xe0 and more").decode()
WAV = base64.b64encode(b"RIFF\x24\x00\x00\x00WAVEfmt ").decode()


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        ({"description": "no name"}, "has no name"),
        ({"name": 7, "inputSchema": {}}, "has no name"),
        ("a text", "has no name"),
        (None, "has no name"),
        (tool("bad" * 50), "128 characters"),
        (tool("bad", [1]), "'bad' is left out: its schema is no object"),
        ({"name": "bad", "description": "d"}, "'bad' has no schema"),
        (tool("bad", {"type": "object", "properties": {"a": {"type": "array"}}}), "'bad': an array that says nothing"),
        (tool("bad", {"type": "object", "properties": {"a": 7}}), "'bad': a part that is no schema"),
        (tool("bad", {"type": "object", "properties": {"a": {"$ref": "#/x"}}}), "'bad': a reference that leads nowh"),
        (tool("bad", description=["d"], annotations=7, title={}, outputSchema="x"), None),
        (tool("bad", annotations={"readOnlyHint": "yes", "title": 3}), None),
    ],
)
async def test_an_odd_tool_costs_itself(
    start: Start, caplog: pytest.LogCaptureFixture, odd: object, said: str | None
) -> None:
    """An invalid tool is left out, and the log names it; the other tools can be called."""
    async with ScriptedServer(odd, tool("good"), tool("fine")) as server:
        tools = await start(MCPServer(name="box", url=server.mcp))
        assert {"good", "fine"} <= {one.tool for one in tools.tools}
        assert not tools.degraded
        assert (await tools.call("bmcp_box_good", {})).text == "ok"
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert (len(lines) == 1 and said in lines[0]) if said else not lines


async def test_a_page_of_tools_that_is_refused_costs_itself(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """If a page of tools is invalid, the tools of the earlier pages are offered."""
    async with ScriptedServer() as server:
        server.on_list = lambda message: whole(
            error(message["id"], -32602, "invalid cursor")
            if message.get("params", {}).get("cursor")
            else result(message["id"], {"tools": [tool("good")], "nextCursor": "2"})
        )
        tools = await start(MCPServer(name="box", url=server.mcp))
        assert [one.tool for one in tools.tools] == ["good"]
    assert any("a further page of its tools is refused" in record.getMessage() for record in caplog.records)


async def test_what_is_odd_is_logged_once(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """A deviation is logged once for all principals and readings, and a flood of them makes few lines."""
    async with ScriptedServer(*({"name": f"{'long' * 40}{number}"} for number in range(300)), tool("good")) as server:
        for _ in range(3):
            await start(MCPServer(name="box", url=server.mcp))
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert 1 <= len(lines) <= 65
    assert all(len(line) < 300 for line in lines)


async def test_names_in_the_log_are_harmless(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """A server's names cannot break lines or hide text in the log, and descriptions lose invisible characters."""
    tags = "".join(chr(0xE0000 + ord(letter)) for letter in "obey")
    schema = {"type": "object", "properties": {"a": {"type": "string", "description": f"b\u202e{tags}"}}}
    names = [f"x\nWARNING root: \x1b[31mhacked{tags}" + "y" * 200, "good"]
    async with ScriptedServer(
        *(tool(one, schema, description=f"See\x00{tags}\u200b this\nnow") for one in names)
    ) as box:
        tools = await start(MCPServer(name="box", url=box.mcp))
        (good,) = tools.tools
    assert good.description == "See this\nnow"
    assert good.input_schema["properties"]["a"]["description"] == "b"
    for record in caplog.records:
        assert record.getMessage().isprintable()
        assert record.getMessage().isascii()


@pytest.mark.parametrize("capabilities", [{"resources": {}}, {"prompts": {}, "tools": None}, {"tools": False}])
async def test_a_server_without_tools_is_healthy(start: Start, capabilities: object) -> None:
    """A server without the tools capability is not asked for a list."""
    async with ScriptedServer() as server:
        server.capabilities = capabilities
        tools = await start(MCPServer(name="docs", url=server.mcp))
        assert (tools.tools, tools.degraded) == ((), False)
        assert "tools/list" not in server.methods


@pytest.mark.parametrize("capabilities", [None, [], "all", {"tools": {}}, {"tools": []}, {"tools": True}])
async def test_a_server_that_says_little_of_itself_is_asked(start: Start, capabilities: object) -> None:
    """A server with invalid capabilities is asked for its tools."""
    async with ScriptedServer() as server:
        server.capabilities = capabilities
        assert len((await start(MCPServer(name="box", url=server.mcp))).tools) == 1


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        ({"structuredContent": {"a": 1}}, (Text('{"a":1}'),)),
        ({"content": None, "structuredContent": [1]}, (Text("[1]"),)),
        ({"toolResult": {"a": 1}}, (Text('{"a":1}'),)),
        ({"rows": 3}, (Text('{"rows":3}'),)),
        ({"content": "just text"}, (Text("just text"),)),
        ({"content": {"type": "text", "text": "alone"}}, (Text("alone"),)),
        ({"content": ["a", {"type": "text", "text": "b"}]}, (Text("a"), Text("b"))),
        (
            {"content": [{"type": "json", "json": {"a": 1}}, {"type": "text", "text": "kept"}]},
            (Text('{"type":"json","json":{"a":1}}'), Text("kept")),
        ),
        ({"content": [{"type": "text"}, 7, None]}, (Text('{"type":"text"}'), Text("7"), Text("null"))),
        ({"content": [{"type": "image", "data": JPEG, "mimeType": "image/png"}]}, (Image(JPEG, "image/jpeg"),)),
        ({"content": [{"type": "image", "data": PNG}]}, (Image(PNG, "image/png"),)),
        ({"content": [{"type": "image", "data": WAV, "mimeType": "image/png"}]}, (Audio(WAV, "audio/wav"),)),
        ({"content": [{"type": "image", "data": f"data:image/gif;base64,{PNG}"}]}, (Image(PNG, "image/png"),)),
        ({"content": [{"type": "image", "data": f"{PNG[:8]}\n{PNG[8:].rstrip('=')}"}]}, (Image(PNG, "image/png"),)),
        (
            {"content": [{"type": "image", "data": "no base64!", "mimeType": "image/png"}]},
            (Text("[image/png, which is not shown: it is not base64]"),),
        ),
        (
            {"content": [{"type": "resource", "resource": {"uri": "file:///a", "blob": PNG}}]},
            (Image(PNG, "image/png"),),
        ),
        ({"content": [{"type": "resource_link", "uri": "file:///a"}]}, (Text("[Resource link, file:///a]"),)),
        ({"content": [], "isError": "true"}, ()),
    ],
)
async def test_an_odd_result_reaches_the_model(start: Start, answer: dict[str, Any], shown: tuple[Any, ...]) -> None:
    """An invalid result of a tool that has run is passed on in some form, and images keep their type."""
    async with ScriptedServer() as server:
        server.on_call = lambda message: whole(result(message["id"], answer))
        tools = await start(MCPServer(name="box", url=server.mcp))
        outcome = await tools.call("bmcp_box_look", {})
        assert outcome.content == shown
        assert outcome.is_error is ("isError" in answer)
        assert len(server.calls) == 1


@pytest.mark.parametrize(
    ("answer", "shown"), [("text", "text"), ([1, 2], "[1,2]"), (7, "7"), (None, "(no output)"), (False, "false")]
)
async def test_a_bare_value_is_a_result(start: Start, answer: object, shown: str) -> None:
    """A bare value in place of a result is passed on, even beside an empty error."""
    async with ScriptedServer() as server:
        server.on_call = lambda message: whole({**result(message["id"], answer), "error": None})
        tools = await start(MCPServer(name="box", url=server.mcp))
        outcome = await tools.call("bmcp_box_look", {})
        assert (outcome.text, outcome.is_error) == (shown, False)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (rb'{"content": [{"type": "text", "text": "a\ud800b"}]}', "a?b"),
        (b'{"content": [{"type": "text", "text": "a\xffb"}]}', "a\ufffdb"),
        (b'{"structuredContent": {"a": NaN, "b": 1}}', '{"a":null,"b":1}'),
    ],
)
async def test_an_answer_that_is_not_quite_json_is_read(start: Start, raw: bytes, shown: str) -> None:
    """Lone surrogates, invalid UTF-8 and NaN in JSON are read, because some languages write them."""
    async with ScriptedServer() as server:
        server.on_call = lambda message: whole(b'{"jsonrpc":"2.0","id":%d,"result":%b}' % (message["id"], raw))
        tools = await start(MCPServer(name="box", url=server.mcp))
        assert (await tools.call("bmcp_box_look", {})).text == shown


@pytest.mark.parametrize("label", ["text/plain", "application/json; charset=utf-8", "application/octet-stream", ""])
async def test_json_is_read_whatever_it_is_called(start: Start, label: str) -> None:
    """JSON with a wrong content type, or without one, is read."""
    async with ScriptedServer() as server:
        headers = (("Content-Type", label),) if label else ()
        server.on_call = lambda message: whole(result(message["id"], {"content": "ok"}), headers=headers)
        tools = await start(MCPServer(name="box", url=server.mcp))
        assert (await tools.call("bmcp_box_look", {})).text == "ok"
