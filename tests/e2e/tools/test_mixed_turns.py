"""Turns that call injected tools and the client's own, through the official SDKs and over real sockets."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from fastapi_aibridge.testing import Reply

from ...formats.rounds.driving import CHAT, MESSAGES, RESPONSES, own_call
from ...formats.rounds.test_mixed_turns import outline
from ...mcp.servers import ToolServer
from ..gateway import client
from .harness import BOB, GatewayHarness, harness, tool

pytestmark = pytest.mark.anyio

SCRIPT = [
    Reply(text="One.", thinking="hm", tool_calls=[tool("echo", "c1", text="x")]),
    Reply(text="Two.", thinking="ha", tool_calls=[tool("echo", "c2", text="y"), own_call("own")]),
    Reply(text="Three.", tool_calls=[own_call("own3")]),
    Reply(text="Done."),
    Reply(text="For Bob."),
]


async def test_chat(streamed: bool, server: ToolServer) -> None:
    """The SDK sends its message back with the tool's result; the model finds all calls and results in the history."""
    messages: list[Any] = [{"role": "user", "content": "hi"}]
    tools: Any = [CHAT.own_tool]

    async def turn(home: GatewayHarness, key: str = "k-alice") -> Any:
        async with home.openai(key) as sdk:
            if not streamed:
                return await sdk.chat.completions.create(model="m", messages=messages, tools=tools)
            async with sdk.chat.completions.stream(model="m", messages=messages, tools=tools) as stream:
                async for _ in stream:
                    pass
                return await stream.get_final_completion()

    async with harness(SCRIPT, {"box": server.url}) as home:
        for expected in ("One.\n\nTwo.", "Three.", "Done."):
            choice = (await turn(home)).choices[0]
            assert choice.message.content == expected
            messages.append(choice.message.model_dump(exclude_none=True))
            calls = choice.message.tool_calls or []
            assert choice.finish_reason == ("tool_calls" if calls else "stop")
            messages += [{"role": "tool", "tool_call_id": one.id, "content": "mine"} for one in calls]
        words = ["user hi", "assistant One.", "call c1", "result c1", "assistant Two.", "call c2", "call own"]
        words += ["result c2", "result own"]
        assert outline(CHAT, home.upstream[2]) == words
        assert outline(CHAT, home.upstream[3]) == [*words, "assistant Three.", "call own3", "result own3"]
        await turn(home, BOB)
        assert "call c2" not in outline(CHAT, home.upstream[4])


async def test_messages(streamed: bool, server: ToolServer) -> None:
    """The history of Messages is complete as well, including its thinking."""
    messages: list[Any] = [{"role": "user", "content": "hi"}]

    async def turn(home: GatewayHarness, key: str = "k-alice") -> Any:
        asked: dict[str, Any] = {"model": "m", "max_tokens": 99, "messages": messages, "tools": [MESSAGES.own_tool]}
        async with home.anthropic(key) as sdk:
            if not streamed:
                return await sdk.messages.create(**asked)
            async with sdk.messages.stream(**asked) as stream:
                return await stream.get_final_message()

    async with harness(SCRIPT, {"box": server.url}) as home:
        for expected in (["thinking", "text", "thinking", "text", "tool_use"], ["text", "tool_use"], ["text"]):
            message = await turn(home)
            assert [block.type for block in message.content] == expected
            uses = [block for block in message.content if block.type == "tool_use"]
            assert message.stop_reason == ("tool_use" if uses else "end_turn")
            messages.append({"role": "assistant", "content": [block.to_dict() for block in message.content]})
            results = [{"type": "tool_result", "tool_use_id": one.id, "content": "mine"} for one in uses]
            messages.append({"role": "user", "content": results or "thanks"})
        words = ["user hi", "thinking", "assistant One.", "call c1", "result c1", "thinking", "assistant Two."]
        words += ["call c2", "call own", "result c2", "result own"]
        assert outline(MESSAGES, home.upstream[2]) == words
        assert outline(MESSAGES, home.upstream[3]) == [*words, "assistant Three.", "call own3", "result own3"]
        rounds = [one["messages"] for one in home.upstream]
        assert rounds[2][: len(rounds[1])] == rounds[1]
        await turn(home, BOB)
        assert "call c2" not in outline(MESSAGES, home.upstream[4])


async def test_responses(streamed: bool, server: ToolServer) -> None:
    """The history of Responses is complete as well if the client keeps it."""
    items: list[Any] = [{"role": "user", "content": "hi"}]

    async def turn(home: GatewayHarness, key: str = "k-alice") -> Any:
        asked: dict[str, Any] = {"model": "m", "input": items, "tools": [RESPONSES.own_tool], "store": False}
        async with home.openai(key) as sdk:
            if not streamed:
                return await sdk.responses.create(**asked)
            async with sdk.responses.stream(**asked) as stream:
                return await stream.get_final_response()

    async with harness(SCRIPT, {"box": server.url}) as home:
        for expected in ("One.Two.", "Three.", "Done."):
            response = await turn(home)
            assert response.output_text == expected
            items += [item.to_dict() for item in response.output]
            calls = [item for item in response.output if item.type == "function_call"]
            items += [{"type": "function_call_output", "call_id": one.call_id, "output": "mine"} for one in calls]
        words = ["user hi", "reasoning", "assistant One.", "call c1", "result c1", "reasoning", "assistant Two."]
        words += ["call c2", "call own", "result c2", "result own"]
        assert outline(RESPONSES, home.upstream[2]) == words
        assert outline(RESPONSES, home.upstream[3]) == [*words, "assistant Three.", "call own3", "result own3"]
        await turn(home, BOB)
        assert "call c2" not in outline(RESPONSES, home.upstream[4])


async def test_responses_that_the_provider_remembers(streamed: bool, server: ToolServer) -> None:
    """`previous_response_id` names the response that the provider has, and only missing results are sent."""
    async with harness([*SCRIPT[:2], *SCRIPT[3:]], {"box": server.url}) as home, home.openai() as sdk:
        asked: dict[str, Any] = {"model": "m", "tools": [RESPONSES.own_tool]}
        outputs: list[Any] = [{"type": "function_call_output", "call_id": "own", "output": "mine"}]
        if streamed:
            shown = []
            async with sdk.responses.stream(**asked, input="hi") as stream:
                async for event in stream:
                    shown += [event.response.id] if event.type == "response.created" else []
                first = await stream.get_final_response()
            assert shown == [first.id]
        else:
            first = await sdk.responses.create(**asked, input="hi")
        second = await sdk.responses.create(**asked, input=outputs, previous_response_id=first.id)
        assert second.output_text == "Done."
        assert second.previous_response_id == first.id
        # The scripted provider gives each message a new id; the second message's response holds the whole.
        named = home.upstream[2]["previous_response_id"]
        records = home.recorder.records
        assert named == records[0].facts.token_usages[-1].message_id
        assert outline(RESPONSES, home.upstream[2]) == ["result own", "result c2"]

        for path in ("", "/input_items?limit=1"):
            await client.request(home.server.port, "GET", f"/ai/openai/v1/responses/{first.id}{path}")
            asked_for = home.provider.received[-1]
            assert f"{asked_for.path}?{asked_for.query}".rstrip("?") == f"/v1/responses/{named}{path}"
        body = orjson.dumps({"model": "m", "previous_response_id": first.id})
        await client.request(home.server.port, "POST", "/ai/openai/v1/responses/input_tokens", body)
        assert home.provider.received[-1].json()["previous_response_id"] == named
        reached = len(home.provider.received)
        refused = await client.request(home.server.port, "DELETE", f"/ai/openai/v1/responses/{first.id}", key=BOB)
        assert (refused.status, len(home.provider.received)) == (404, reached), "it is another's"


async def test_a_request_that_takes_no_tools_gets_its_history_back_too(server: ToolServer) -> None:
    """A request that takes no tools gets its complete history, too, and no injected tools."""
    messages: list[Any] = [{"role": "user", "content": "hi"}]
    script = [Reply(tool_calls=[tool("echo", "c1", text="x"), own_call("own")]), Reply(text="Done.")]
    async with harness(script, {"box": server.url}) as home, home.openai() as sdk:
        answer = await sdk.chat.completions.create(model="m", messages=messages)
        messages.append(answer.choices[0].message.model_dump(exclude_none=True))
        messages.append({"role": "tool", "tool_call_id": "own", "content": "mine"})
        await sdk.chat.completions.create(model="m", messages=messages, n=2)
        assert "tools" not in home.upstream[1]
        assert outline(CHAT, home.upstream[1]) == ["user hi", "call c1", "call own", "result c1", "result own"]
