"""Hostile servers: their messages are limited in number, in bytes and in time."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import time
import tracemalloc
from collections.abc import AsyncIterator

import pytest

from fastapi_aibridge import Principal
from fastapi_aibridge.mcp import connection, incoming, limits, session, tool_list
from fastapi_aibridge.mcp.connections import MCPConnections
from fastapi_aibridge.mcp.mcp_tools import MCPTools
from fastapi_aibridge.mcp.server import MCPServer
from fastapi_aibridge.tools import Image, Text
from tests.loopback import response_head
from tests.waiting import until

from .conftest import Start
from .scripted import JSON, STREAM, TEXT, Answer, Message, ScriptedServer, error, event, result, stream, tool, whole
from .test_odd_servers import PNG

pytestmark = pytest.mark.anyio


def page(message: Message, *tools: object, cursor: str | None = None) -> bytes:
    return whole(result(message["id"], {"tools": list(tools), **({"nextCursor": cursor} if cursor else {})}))


async def test_a_list_without_end(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of pages is limited; tools of the first pages are offered."""
    monkeypatch.setattr(connection, "MAX_PAGES", 7)
    numbers = itertools.count()
    async with ScriptedServer() as server:
        server.on_list = lambda message: page(message, tool(f"t{(at := next(numbers))}"), cursor=f"c{at}")
        tools = await start(MCPServer(name="box", url=server.mcp))
        assert len(tools.tools) == 7
        assert server.methods.count("tools/list") == 7


@pytest.mark.parametrize("cursor", ["same", "x" * 5000])
async def test_cursors_that_lead_nowhere(start: Start, cursor: str) -> None:
    """A repeated or an absurdly long cursor ends the list."""
    async with ScriptedServer() as server:
        server.on_list = lambda message: page(message, tool("a"), cursor=cursor)
        assert len((await start(MCPServer(name="box", url=server.mcp))).tools) == 1
        assert server.methods.count("tools/list") <= 2


async def test_a_list_that_is_slow(start: Start) -> None:
    """The time limit for connecting covers all pages of a list."""
    numbers = itertools.count()

    async def slowly(message: Message) -> AsyncIterator[bytes]:
        await asyncio.sleep(0.15)
        yield page(message, tool(f"t{(at := next(numbers))}"), cursor=f"c{at}")

    async with ScriptedServer() as server:
        server.on_list = slowly
        began = time.monotonic()
        tools = await start(MCPServer(name="box", url=server.mcp), connect_timeout=0.5)
        assert tools.degraded
        assert time.monotonic() - began < 15


@pytest.mark.parametrize("large", [False, True])
async def test_too_many_tools(start: Start, caplog: pytest.LogCaptureFixture, large: bool) -> None:
    """At most 512 tools and 1 MiB of definitions are offered, and the log says so."""
    schema = {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(500 if large else 1)}}
    async with ScriptedServer(*(tool(f"t{n:04}", schema) for n in range(600))) as server:
        tools = await start(MCPServer(name="box", url=server.mcp))
    size = len(json.dumps(schema, separators=(",", ":"))) + len("Looks.") + 5
    assert len(tools.tools) == (tool_list.MAX_SIZE // size if large else 512)
    assert f"'t{len(tools.tools):04}' and all behind it are left out" in caplog.text


async def flood(message: Message, *before: bytes, times: int) -> AsyncIterator[bytes]:
    """A stream that repeats events and then has the result."""
    yield response_head(200, STREAM)
    block = b"".join(before)
    for _ in range(times):
        yield block
    yield event(result(message["id"], TEXT))


async def test_a_flood_of_notifications(start: Start) -> None:
    """Progress notifications are accepted, but a flood of them before the result is an error."""
    note = event({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progress": 1}})
    async with ScriptedServer() as server:
        tools = await start(MCPServer(name="box", url=server.mcp))
        server.on_call = lambda message: flood(message, note * 100, times=50)
        assert (await tools.call("bmcp_box_look", {})).text == "ok"
        server.on_call = lambda message: flood(message, note * 1000, times=20)
        assert "more events than anybody reads" in (await tools.call("bmcp_box_look", {})).text


async def test_a_flood_of_bytes(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes of comments, incomplete events and large notifications count together."""
    monkeypatch.setattr(incoming, "MAX_STREAM", 300_000)
    monkeypatch.setattr(incoming, "MAX_MESSAGE", 100_000)
    padding = b":" + b"x" * 9_000
    async with ScriptedServer() as server:
        tools = await start(MCPServer(name="box", url=server.mcp))
        for piece in (padding + b"\n\n", padding, event({"method": "x", "params": "y" * 9_000})):
            server.on_call = lambda message, piece=piece: flood(message, piece, times=100)  # type: ignore[misc]
            answer = await tools.call("bmcp_box_look", {})
            assert answer.is_error
            assert "larger than" in answer.text


async def test_a_flood_of_pings(start: Start, connections: MCPConnections) -> None:
    """Few pings are answered, and few answers run at once."""
    pings = b"".join(event({"jsonrpc": "2.0", "id": number, "method": "ping"}) for number in range(500))
    async with ScriptedServer() as server:
        tools = await start(MCPServer(name="box", url=server.mcp))
        server.on_call = lambda message: flood(message, pings, times=10)
        assert (await tools.call("bmcp_box_look", {})).text == "ok"
        await until(lambda: not connections.working)
        answered = sum(b'"result":{}' in one.body for one in server.requests)
        assert 1 <= answered <= incoming.MAX_REQUESTS
        assert server.connections < 30


async def test_answers_that_break_off_for_ever(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that breaks off after each event is resumed three times, not until the call times out."""
    monkeypatch.setattr(incoming, "RETRY", (0.01, 0.01, 0.01))
    async with ScriptedServer() as server:
        tools = await start(MCPServer(name="box", url=server.mcp))

        def broken(request: object, message: Message) -> Answer | None:
            if server.methods[-1] in ("GET", "tools/call"):
                return stream(b'id: 1\nretry: 0\ndata: {"method":"x"}\n\n')
            return None

        server.before = broken
        assert "broke off" in (await tools.call("bmcp_box_look", {})).text
        assert server.methods.count("GET") == 3


async def test_a_list_that_changes_all_the_time(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """If each reading announces the next change, readings become rarer, and calls do not wait for them."""
    monkeypatch.setattr(session, "REFRESH_PAUSES", (30.0, 60.0))
    change = event({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
    async with ScriptedServer() as server:
        server.on_list = lambda message: stream(change, event(result(message["id"], {"tools": [tool()]})))
        tools = await start(MCPServer(name="box", url=server.mcp))
        for _ in range(20):
            assert (await tools.call("bmcp_box_look", {})).text == "ok"
        await asyncio.sleep(0.2)
        assert server.methods.count("tools/list") <= session.REFRESHES + 2


async def test_an_unasked_answer_is_nobodys(start: Start) -> None:
    """Data that a server sends on an idle connection is not taken for the response to a later request."""
    async with ScriptedServer() as server:

        def twice(message: Message) -> bytes:
            stolen = {"content": [{"type": "text", "text": "for somebody else"}]}
            later = b"".join(whole(result(number, stolen)) for number in range(message["id"], message["id"] + 9))
            return whole(result(message["id"], TEXT)) + later

        server.on_call = twice
        alice = await start(MCPServer(name="box", url=server.mcp))
        bob = await start(MCPServer(name="box", url=server.mcp), who=Principal("bob"))
        for _ in range(5):
            for tools in (alice, bob):
                assert (await tools.call("bmcp_box_look", {})).text == "ok"


async def test_large_answers_are_not_kept(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """An excessive response is dropped while it arrives, with or without a declared length."""
    monkeypatch.setattr("fastapi_aibridge.mcp.dispatcher.MAX_MESSAGE", 1_000_000)

    async def endless(_: Message) -> AsyncIterator[bytes]:
        yield response_head(200, (("Content-Type", "application/json"), ("Connection", "close")))
        while True:
            yield b" " * 65536

    async with ScriptedServer() as server:
        tools = await start(MCPServer(name="box", url=server.mcp))
        server.on_call = endless
        tracemalloc.start()
        answer = await tools.call("bmcp_box_look", {})
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert "larger than 1000000 bytes" in answer.text
        assert peak < 8_000_000


async def test_an_answer_of_many_values(start: Start) -> None:
    """A message of a few megabytes that would become millions of objects is refused before it is parsed."""
    async with ScriptedServer() as server:
        tools = await start(MCPServer(name="box", url=server.mcp))
        server.on_call = lambda message: whole(
            b'{"jsonrpc":"2.0","id":%d,"result":{"content":[%b{}]}}' % (message["id"], b"{}," * 2_000_000)
        )
        began = time.thread_time()
        answer = await tools.call("bmcp_box_look", {})
        assert "more values than anybody reads" in answer.text
        assert time.thread_time() - began < 2


@pytest.mark.parametrize("depth", [300, 100_000])
async def test_an_answer_nested_without_end(start: Start, depth: int) -> None:
    """A response that is nested too deeply fails its call alone, or is shown as text."""
    async with ScriptedServer() as server:
        tools = await start(MCPServer(name="box", url=server.mcp))
        nested = b"[" * depth + b"]" * depth
        server.on_call = lambda message: whole(
            b'{"jsonrpc":"2.0","id":%d,"result":{"structuredContent":%b}}' % (message["id"], nested)
        )
        assert (await tools.call("bmcp_box_look", {})).text
        server.on_call = lambda _: None
        assert (await tools.call("bmcp_box_look", {})).text == "ok"


async def test_images_are_bounded_together(start: Start) -> None:
    """Images count together: the second of two is left out with a note if both are too large; parts are limited."""
    image = {"type": "image", "data": PNG, "mimeType": "image/png"}
    room = 100 // len(PNG)
    assert [type(one) for one in limits.cut([Image(PNG, "image/png")] * (room + 1), media=100)] == [Image] * room + [
        Text
    ]
    async with ScriptedServer() as server:
        tools = await start(MCPServer(name="box", url=server.mcp))
        server.on_call = lambda message: whole(result(message["id"], {"content": [image] * 1000}))
        answer = await tools.call("bmcp_box_look", {})
        assert len(answer.content) == limits.MAX_PARTS + 1
        assert answer.text.endswith("744 more parts are left out.]")


@pytest.mark.parametrize("value", ["x" * 2000, "s\u00e91", "a\tb"])
async def test_session_ids_that_no_header_may_have(start: Start, value: str) -> None:
    """An invalid session id makes the server unusable and is not sent back."""
    async with ScriptedServer() as server:
        server.before = lambda _, message: (
            whole(
                result(message["id"], {"protocolVersion": "2025-06-18", "capabilities": {}}),
                headers=(("Content-Type", "application/json"), ("Mcp-Session-Id", value)),
            )
            if message.get("method") == "initialize"
            else None
        )
        assert (await start(MCPServer(name="box", url=server.mcp))).degraded


async def test_sockets_to_one_server_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections to one server are limited; further calls wait and succeed."""
    monkeypatch.setattr("fastapi_aibridge.mcp.http.CONNECTIONS_PER_SERVER", 3)

    async def slow(message: Message) -> AsyncIterator[bytes]:
        await asyncio.sleep(0.02)
        yield whole(result(message["id"], TEXT), headers=(*JSON, ("Connection", "close")))

    async with ScriptedServer() as server, MCPConnections() as connections:
        tools = MCPTools([MCPServer(name="box", url=server.mcp)], Principal("alice"), connections)
        await tools.start()
        server.on_call = slow
        calls = [asyncio.create_task(tools.call("bmcp_box_look", {})) for _ in range(30)]
        while not all(call.done() for call in calls):
            assert len(connections.http) <= 3
            await asyncio.sleep(0.005)
        assert {call.result().text for call in calls} == {"ok"}
        await tools.aclose()


async def test_a_server_that_refuses_all_tokens(start: Start) -> None:
    """A token provider is not called again for each refusal."""
    asked: list[int] = []

    async def provider() -> str:
        asked.append(1)
        return f"token-{len(asked)}"

    async with ScriptedServer() as server:
        tools = await start(MCPServer(name="box", url=server.mcp, token_provider=provider))
        server.before = lambda _, __: whole(b"", 401, ())
        for _ in range(10):
            assert (await tools.call("bmcp_box_look", {})).is_error
    assert len(asked) == 2


@pytest.mark.parametrize("number", ["x" * 300, {"a": 1}, [1], None])
async def test_requests_of_a_server_with_odd_ids(start: Start, connections: MCPConnections, number: object) -> None:
    """Requests with invalid ids are not answered, because the response would repeat the id."""
    ping = event({"jsonrpc": "2.0", "id": number, "method": "ping"})
    async with ScriptedServer() as server:
        tools = await start(MCPServer(name="box", url=server.mcp))
        server.on_call = lambda message: stream(ping, event(result(message["id"], TEXT)))
        assert (await tools.call("bmcp_box_look", {})).text == "ok"
        await until(lambda: not connections.working)
        assert not any(b'"result":{}' in one.body for one in server.requests)


async def test_idle_bridges_are_small(connections: MCPConnections) -> None:
    """An idle principal with one server of ten tools needs at most 9 KiB."""
    async with ScriptedServer(*(tool(f"t{n}") for n in range(10))) as server:
        servers = [MCPServer(name="box", url=server.mcp)]
        bridges = [MCPTools(servers, Principal(f"user-{n}"), connections) for n in range(220)]
        for tools in bridges[:20]:
            await tools.start()
        await until(lambda: not connections.working)
        server.requests.clear()
        tracemalloc.start()
        for tools in bridges[20:]:
            await tools.start()
            server.requests.clear()
        await until(lambda: not connections.working)
        gc.collect()
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert size / 200 < 9 * 1024
        await asyncio.gather(*(tools.aclose() for tools in bridges))


async def test_a_list_of_nothing_usable(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """The number of checked entries is limited, and a schema of megabytes is left out without being traversed."""
    huge = tool("huge", {"type": "object", "properties": {f"p{n}": {} for n in range(150_000)}})
    async with ScriptedServer(tool("good"), huge, *[{}] * 200_000, tool("behind")) as server:
        tools = await start(MCPServer(name="box", url=server.mcp))
        assert [one.tool for one in tools.tools] == ["good"]
    assert len(caplog.records) < 30
    assert "'huge' is left out: its schema is too large" in caplog.text


async def test_an_event_of_many_lines(start: Start) -> None:
    """The lines of an event are counted before they are split."""
    async with ScriptedServer() as server:
        tools = await start(MCPServer(name="box", url=server.mcp))
        server.on_call = lambda message: stream(b"data:\n" * 1_000_000 + b"\n", event(result(message["id"], TEXT)))
        assert "more lines than anybody reads" in (await tools.call("bmcp_box_look", {})).text


async def test_nothing_holds_the_loop_for_long(start: Start) -> None:
    """No response blocks the event loop for long."""
    text = "x," * 400_000
    answers = [
        {"content": [{"type": "text", "text": text}]},
        {"content": [{"type": "text", "text": "a"}] * 200_000},
        {"content": [{"type": "image", "data": PNG * 100_000}]},
        {"content": [{"type": "image", "data": "-_" * 4_000_000}]},
        {"structuredContent": {str(number): [number] for number in range(100_000)}},
    ]
    async with ScriptedServer() as server:
        tools = await start(MCPServer(name="box", url=server.mcp))
        for answer in answers:
            encoded = json.dumps(answer).encode()
            server.on_call = lambda message, encoded=encoded: whole(  # type: ignore[misc]
                b'{"jsonrpc":"2.0","id":%d,"result":%b}' % (message["id"], encoded)
            )
            longest = []
            for _ in range(5):  # the least of them: a busy machine makes some of them long
                stalls = [0.0]

                async def watch(stalls: list[float] = stalls) -> None:
                    while True:
                        began = time.thread_time()
                        await asyncio.sleep(0)
                        stalls.append(time.thread_time() - began)

                watching = asyncio.create_task(watch())
                await tools.call("bmcp_box_look", {})
                watching.cancel()
                longest.append(max(stalls))
                if longest[-1] < 0.05:
                    break
            assert min(longest) < 0.05


async def test_secrets_that_a_server_repeats_are_masked(start: Start) -> None:
    """Secrets sent to a server are masked in its tools, results and errors, for models and records."""
    token, key = "token-0123456789", "session-0123456789"
    headers = {"Authorization": f"Bearer {token}", "X-User": "{session_key}", "X-Tenant": "engineering"}
    said = f"{token} {key} of engineering"
    async with ScriptedServer(tool(schema={"type": "object", "properties": {key: {"type": "string"}}})) as server:
        server.tools[0]["description"] = said  # type: ignore[index]
        principal = Principal(initiator_id="alice", session_key=key)
        tools = await start(MCPServer(name="box", url=server.mcp, headers=headers), who=principal)
        (offered,) = tools.tools
        server.on_call = lambda message: whole(
            result(message["id"], {"content": [{"type": "text", "text": said}], "structuredContent": {"x": said}})
        )
        answered = await tools.call(offered.name, {})
        server.on_call = lambda message: whole(error(message["id"], -32000, said))
        failed = await tools.call(offered.name, {})
    shown = [offered.description, str(offered.input_schema), str(answered.content), str(failed.content)]
    assert not any(secret in text for secret in (token, key) for text in shown), shown
    assert all("engineering" in text for text in (shown[0], *shown[2:]))
    assert failed.is_error
