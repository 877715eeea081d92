"""Injected tools end to end: real sockets, a real MCP server, a scripted model."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from fastapi_aibridge import Status
from fastapi_aibridge.exchange import loop
from fastapi_aibridge.testing import Received, Reply, ToolCall, Usage
from tests.garbage import nothing_left
from tests.waiting import until

from ...formats.rounds.driving import CHAT, KINDS, MESSAGES, RESPONSES, Kind, events_of, own_call, read
from ...mcp.servers import PIXEL, ToolServer
from ..gateway.client import connected
from .harness import harness, tool

pytestmark = pytest.mark.anyio
DONE = Reply(text="Done.", usage=Usage(input_tokens=7, output_tokens=3))
PINGS = {CHAT: b": ping\n\n", RESPONSES: b": ping\n\n", MESSAGES: b'event: ping\ndata: {"type": "ping"}\n\n'}


def results_of(kind: Kind, body: dict[str, Any]) -> dict[str, Any]:
    """Return the tools' results in a request, by call id."""
    if kind is CHAT:
        return {one["tool_call_id"]: one["content"] for one in body["messages"] if one["role"] == "tool"}
    if kind is RESPONSES:
        return {
            one["call_id"]: one["output"]
            for one in body["input"]
            if isinstance(one, dict) and one.get("type") == "function_call_output"
        }
    return {
        one["tool_use_id"]: one["content"]
        for message in body["messages"]
        if isinstance(message["content"], list)
        for one in message["content"]
        if one["type"] == "tool_result"
    }


def text_of(result: Any) -> str:
    return result if isinstance(result, str) else "".join(part.get("text", "") for part in result)


async def test_parallel_calls_run_at_once_and_are_recorded(kind: Kind, streamed: bool, server: ToolServer) -> None:
    """All calls of a turn run concurrently; the record has each with its server, and the usage of each message."""
    calls = [tool("slow", "c1", text="one"), tool("slow", "c2", text="two"), tool("echo", "c3", text="three")]
    prices = {name: {"m": {"input": 2, "output": 5}} for name in ("openai", "anthropic")}
    async with harness([Reply(text="Wait.", tool_calls=calls), DONE], {"box": server.url}, prices=prices) as home:
        asking = asyncio.create_task(home.ask(kind, streamed=streamed, tools=[kind.own_tool]))
        await until(lambda: server.running == 2)
        server.gate.set()
        seen = await asking
        assert seen.text in ("Wait.Done.", "Wait.\n\nDone.")
        assert seen.calls == []
        results = results_of(kind, home.upstream[1])
        assert {id_: text_of(result) for id_, result in results.items()} == {
            "c1": "slow: one",
            "c2": "slow: two",
            "c3": "echo: three",
        }

        record = await home.record()
        assert record.ending is not None
        assert (record.ending.status, record.ending.upstream_status) == (Status.COMPLETED, 200)
        assert [one.text for one in record.facts.prompts] == ["hi"]
        assert [(one.input_tokens, one.output_tokens, one.partial) for one in record.facts.token_usages] == [
            (12, 6, False),
            (7, 3, False),
        ]
        assert [one.cost for one in record.facts.token_usages] == [12 * 2 + 6 * 5, 7 * 2 + 3 * 5]
        assert (record.ending.cost, record.ending.cost_estimated) == (19 * 2 + 9 * 5, False)
        assert len({one.message_id for one in record.facts.token_usages}) == 2
        usages = {one.call_id: one for one in record.facts.tool_usages}
        assert {(one.tool, one.server, one.injected, one.error) for one in usages.values()} == {
            ("slow", "box", True, None),
            ("echo", "box", True, None),
        }
        assert usages["c2"].arguments == {"text": "two"}
        assert all(one.duration is not None and one.duration > 0 for one in usages.values())
        metrics = await home.metrics()
        (slow,) = [line for line in metrics.splitlines() if "tool" in line and '"slow"' in line and "_count" in line]
        assert 'server="box"' in slow
        assert slow.endswith(" 2.0")


async def test_failing_tools_are_results_for_the_model(kind: Kind, streamed: bool, server: ToolServer) -> None:
    """A tool's error, a broken tool and invalid arguments are results for the model, and are hidden from the client."""
    calls = [tool("fail", "c1"), tool("boom", "c2"), tool("echo", "c4", text="well")]
    calls += [] if kind is MESSAGES and not streamed else [ToolCall("bmcp_box_echo", '{"text', "c3")]
    async with harness([Reply(tool_calls=calls), DONE], {"box": server.url}) as home:
        assert (await home.ask(kind, streamed=streamed)).text == "Done."
        results = {id_: text_of(one) for id_, one in results_of(kind, home.upstream[1]).items()}
        assert results["c1"] == "it failed"
        assert results.get("c3", "the arguments are not a JSON object") == "the arguments are not a JSON object"
        assert results["c4"] == "echo: well"
        record = await home.record()
        errors = {one.call_id: one.error for one in record.facts.tool_usages}
        assert errors == {id_: None if id_ == "c4" else text for id_, text in results.items()}
        assert record.ending is not None
        assert record.ending.status is Status.COMPLETED


async def test_calls_that_share_an_id_are_recorded_each_with_its_own_outcome(
    kind: Kind, streamed: bool, server: ToolServer
) -> None:
    """Of two calls with one id the record says which failed; both have been run."""
    calls = [tool("fail", "same"), tool("echo", "same", text="well")]
    async with harness([Reply(tool_calls=calls), DONE], {"box": server.url}) as home:
        assert (await home.ask(kind, streamed=streamed)).text == "Done."
        results = results_of(kind, home.upstream[1])
        assert [text_of(one) for one in results.values()] == ["it failed", "echo: well"]
        record = await home.record()
        assert [(one.tool, one.error) for one in record.facts.tool_usages] == [("fail", "it failed"), ("echo", None)]


async def test_a_silent_stream_is_kept_alive(kind: Kind, server: ToolServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """While tools run or the next response is slow, the client gets pings in the format's own form."""
    monkeypatch.setattr(loop, "PING_AFTER", 0.03)
    answer = asyncio.Event()

    async def script(received: Received) -> Reply:
        if results_of(kind, received.json()):
            await answer.wait()
            return DONE
        return Reply(tool_calls=[tool("slow", "c1")])

    async with harness(script, {"box": server.url}) as home, connected(home.server.port) as client:
        await client.send("POST", home.target(kind), kind.request(streamed=True))
        await client.head()
        body = b""
        while body.count(PINGS[kind]) < 2:
            body += await client.piece()
        server.gate.set()
        await until(lambda: len(home.provider.received) == 2)
        pinged = body.count(PINGS[kind])
        while body.count(PINGS[kind]) < pinged + 2:
            body += await client.piece()
        answer.set()
        while piece := await client.piece():
            body += piece
        # A ping never interrupts an event.
        assert all(block.startswith((b"event:", b"data:", b": ping")) for block in body.split(b"\n\n") if block)
        assert read(kind, body, streamed=True).text == "Done."


async def test_a_model_that_pauses_is_pinged_too(server: ToolServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pause within a message is bridged with pings, without losing a byte."""
    monkeypatch.setattr(loop, "PING_AFTER", 0.02)
    script = [Reply(text="a b c", delay=0.05)]
    async with harness(script, {"box": server.url}) as home:
        answer = await home.request(MESSAGES, streamed=True)
        assert answer.body.count(PINGS[MESSAGES]) >= 3
        assert (await home.record()).ending is not None
        assert read(MESSAGES, answer.body, streamed=True).text == "a b c"


async def test_a_client_that_leaves_cancels_its_tools(kind: Kind, streamed: bool, server: ToolServer) -> None:
    """A client that leaves cancels its call at the tool server; the record is cancelled, with the call's error."""
    calls = [tool("slow", "c1"), tool("echo", "c2")]
    async with harness([Reply(tool_calls=calls), DONE], {"box": server.url}) as home:
        async with connected(home.server.port) as client:
            await client.send("POST", home.target(kind), kind.request(streamed=streamed))
            await until(lambda: server.running == 1 and len(server.calls) == 2)
            client.leave()
        await until(lambda: server.cancelled == 1)
        record = await home.record()
        assert record.ending is not None
        assert record.ending.status is Status.CANCELLED
        usages = {one.call_id: one for one in record.facts.tool_usages}
        assert usages["c1"].injected
        assert usages["c1"].error is not None
        assert usages["c1"].duration is None
        assert len(record.facts.token_usages) == 1
        assert len(home.provider.received) == 1
        await until(lambda: home.aibridge.pool.metrics().leases == 0)


async def test_rounds_are_bounded(kind: Kind, streamed: bool, server: ToolServer) -> None:
    """A model that never stops calling is stopped: the last of 25 messages may not call a tool."""
    async with harness(lambda _: Reply(tool_calls=[tool("echo")]), {"box": server.url}) as home:
        seen = await home.ask(kind, streamed=streamed)
        assert seen.calls == []
        assert len(home.provider.received) == loop.MAX_ROUNDS == 25
        assert len(server.calls) == 24
        none = {"type": "none"} if kind is MESSAGES else "none"
        assert [body.get("tool_choice") for body in home.upstream] == [None] * 24 + [none]
        record = await home.record()
        assert len(record.facts.token_usages) == 25
        assert [one.error is None for one in record.facts.tool_usages] == [True] * 24 + [False]


@pytest.mark.parametrize("reply", [Reply(status=500, error="gone wrong"), Reply(text="x", hang_up=True)])
async def test_a_second_call_that_fails(kind: Kind, streamed: bool, server: ToolServer, reply: Reply) -> None:
    """An error in a later round is passed on, or ends a stream with an error event; the first round stays recorded."""
    async with harness([Reply(text="So", tool_calls=[tool("echo", "c1")]), reply], {"box": server.url}) as home:
        answer = await home.request(kind, streamed=streamed)
        if streamed:
            assert answer.status == 200
            assert answer.whole
            end = json.loads(answer.body.rstrip().rpartition(b"data: ")[2])
            assert end.get("error") or end["response"]["error"]
            assert b"[DONE]" not in answer.body
            assert b"message_stop" not in answer.body
        else:
            assert answer.status == (500 if reply.status == 500 else 502)
            assert "error" in json.loads(answer.body)
        record = await home.record()
        assert record.ending is not None
        assert record.ending.status is Status.FAILED
        assert [(one.tool, one.error) for one in record.facts.tool_usages] == [("echo", None)]
        assert record.facts.token_usages[0].input_tokens == 12
        assert len(record.facts.prompts) == 1


@pytest.mark.parametrize(
    ("status", "openais", "anthropics"),
    [(429, "rate_limit_error", "rate_limit_error"), (529, "server_error", "overloaded_error")],
)
async def test_the_error_event_says_what_kind_of_error_it_was(
    kind: Kind, server: ToolServer, status: int, openais: str, anthropics: str
) -> None:
    """If a later round fails within a stream, the error's type stands for the status that cannot be sent."""
    refused = Reply(status=status, error="too much")
    async with harness([Reply(text="So", tool_calls=[tool("echo", "c1")]), refused], {"box": server.url}) as home:
        answer = await home.request(kind, streamed=True)
        error = next(one["error"] for one in events_of(answer.body) if one.get("error"))
        assert "too much" in error["message"]
        assert error["type"] == (anthropics if kind is MESSAGES else openais)


async def test_a_crash_between_rounds_keeps_what_was_seen(kind: Kind, streamed: bool, server: ToolServer) -> None:
    """Each round is recorded before the next one begins, with its prompt."""
    in_time: list[Any] = []

    def script(_: Received) -> Reply:
        (record,) = home.recorder.records
        in_time.append(
            (len(record.facts.token_usages), len(record.facts.tool_usages), len(record.facts.prompts), record.ending)
        )
        return Reply(tool_calls=[tool("echo")]) if len(in_time) < 3 else DONE

    async with harness(script, {"box": server.url}) as home:
        await home.ask(kind, streamed=streamed)
        assert in_time == [(0, 0, 0, None), (1, 1, 1, None), (2, 2, 1, None)]
        facts = (await home.record()).facts
        assert [len(facts.token_usages), len(facts.tool_usages), len(facts.prompts)] == [3, 2, 1]


async def test_images_and_structured_content(kind: Kind, server: ToolServer) -> None:
    """The model gets the content that its format can carry, and words for the rest."""
    calls = [tool("picture", "c1"), tool("structured", "c2"), tool("resources", "c3")]
    async with harness([Reply(tool_calls=calls), DONE], {"box": server.url}) as home:
        await home.ask(kind, streamed=True)
        results = results_of(kind, home.upstream[1])
    assert json.loads(text_of(results["c2"])) == {"degrees": 22}
    assert "embedded" in text_of(results["c3"])
    picture = json.dumps(results["c1"])
    assert "Look:" in picture
    assert "[audio, audio/wav]" in picture
    match kind.format.name:
        case "chat_completions":
            assert "[image, image/png]" in picture
        case "responses":
            assert {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}"} in results["c1"]
        case _:
            source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
            assert {"type": "image", "source": source} in results["c1"]


async def test_a_loop_leaves_nothing_to_the_garbage_collector(kind: Kind, streamed: bool, server: ToolServer) -> None:
    """A loop leaves no garbage, because a full collection stops all streams."""
    async with harness([Reply(tool_calls=[tool("echo", "c1")]), Reply(text="x")], {"box": server.url}) as home:
        with nothing_left():
            assert (await home.request(kind, streamed=streamed)).status == 200
            await home.record()


async def test_a_huge_result_is_cut(server: ToolServer) -> None:
    """A huge result is cut off, so that no tool fills the model's context or the gateway's memory."""
    async with harness([Reply(tool_calls=[tool("huge", "c1", size=1_500_000)]), DONE], {"box": server.url}) as home:
        await home.ask(CHAT, streamed=False)
        result = results_of(CHAT, home.upstream[1])["c1"]
        assert len(result.encode()) < 1_100_000
        assert "cut off" in result


async def test_the_clients_tools_and_choice_are_its_own(kind: Kind, streamed: bool, server: ToolServer) -> None:
    """A call of the client's own tool ends the rounds and goes to the client; the gateway runs nothing."""
    async with harness([Reply(text="So", tool_calls=[own_call("own", path="x")])], {"box": server.url}) as home:
        seen = await home.ask(kind, streamed=streamed, tools=[kind.own_tool], tool_choice="required")
        assert [(id_, name) for id_, name, _ in seen.calls] == [("own", "read")]
        (body,) = home.upstream
        assert body["tool_choice"] == "required"
        assert body["tools"][-1] == kind.own_tool
        assert len(body["tools"]) == 11
        assert server.calls == []
        (usage,) = (await home.record()).facts.tool_usages
        assert (usage.tool, usage.injected, usage.server) == ("read", False, None)


async def test_truncated_calls_are_not_run(kind: Kind, streamed: bool, server: ToolServer) -> None:
    """A call in a message that hit its limit may be incomplete: it is not run, and recorded without a result."""
    cut_off = Reply(text="So", tool_calls=[tool("echo", "c1", text="x")], stop_reason="max_tokens")
    async with harness([cut_off], {"box": server.url}) as home:
        seen = await home.ask(kind, streamed=streamed)
        assert seen.text == "So"
        assert server.calls == []
        (usage,) = (await home.record()).facts.tool_usages
        assert usage.injected
        assert usage.error is not None
        assert usage.duration is None


@pytest.mark.parametrize("members", [{"n": 2}, {"functions": [{"name": "f"}]}])
async def test_requests_that_take_no_tools_get_none(server: ToolServer, members: dict[str, Any]) -> None:
    """A request that cannot take tools goes upstream without any."""
    async with harness(DONE, {"box": server.url}) as home:
        await home.request(CHAT, streamed=False, **members)
        assert "tools" not in home.upstream[0]


@pytest.mark.parametrize("kind", KINDS, ids=str)
async def test_requests_are_the_same_for_the_same_request(kind: Kind, server: ToolServer) -> None:
    """Equal requests of any principal are equal bytes upstream, as the provider's prompt cache needs."""
    async with harness(DONE, {"box": server.url}) as home:
        for key in ("k-alice", "k-bob", "k-alice"):
            await home.ask(kind, streamed=False, key=key)
        assert len({one.body for one in home.provider.received}) == 1
