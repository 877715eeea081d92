"""The openai SDK's Responses API, over a socket and in process."""

from __future__ import annotations

import openai
import pytest
from openai import AsyncOpenAI

from fastapi_aibridge.testing import Reply, ToolCall, Usage

from .harness import GatewayHarness

pytestmark = pytest.mark.anyio

ANSWER = Reply("Hello, Alice.", thinking="She says hello.", usage=Usage(output_tokens=9, reasoning_tokens=4))


async def test_a_response(harness: GatewayHarness) -> None:
    """A blocking response has its text, reasoning and usage."""

    async def use(client: AsyncOpenAI) -> object:
        response = await client.responses.create(model="gpt-5", input="Hello")
        assert response.usage
        return response.output_text, [item.type for item in response.output], response.usage.output_tokens

    assert await harness.openai(ANSWER, use) == ("Hello, Alice.", ["reasoning", "message"], 9)
    assert harness.records[0]["facts"]["thoughts"] == [
        {"source": "reasoning_summary", "text": "She says hello.", "truncated": False}
    ]


async def test_a_stream(harness: GatewayHarness) -> None:
    """A stream has the same events in the same order."""

    async def use(client: AsyncOpenAI) -> object:
        return [
            (event.sequence_number, event.type)
            async for event in await client.responses.create(model="gpt-5", input="Hello", stream=True)
        ]

    events = await harness.openai(ANSWER, use)
    assert isinstance(events, list)
    assert [number for number, _ in events] == list(range(len(events)))
    assert events[-1][1] == "response.completed"


async def test_a_function_call(harness: GatewayHarness) -> None:
    """A call of the client's own tool is relayed and recorded."""
    script = Reply(tool_calls=[ToolCall("read_file", {"path": "README.md"}, "call_1")])

    async def use(client: AsyncOpenAI) -> object:
        response = await client.responses.create(model="gpt-5", input="Read it.")
        return [(item.name, item.arguments) for item in response.output if item.type == "function_call"]

    assert await harness.openai(script, use) == [("read_file", '{"path":"README.md"}')]
    assert harness.records[0]["facts"]["tool_usages"][0]["call_id"] == "call_1"


async def test_models_pass_through(harness: GatewayHarness) -> None:
    """The list of models is relayed without a record."""

    async def use(client: AsyncOpenAI) -> object:
        return [model.id async for model in client.models.list()]

    async with AsyncOpenAI(base_url=f"{harness.url}/openai/v1", api_key="k-alice") as client:
        assert await use(client) == await use(harness.bridge.openai()) == ["gpt-5", "claude-sonnet-5"]
    assert harness.records == []


async def test_what_is_not_relayed_says_so(harness: GatewayHarness) -> None:
    """Files, like other unsupported routes, are refused with an error that names the route."""

    async def use(client: AsyncOpenAI) -> object:
        with pytest.raises(openai.NotFoundError) as caught:
            await client.files.create(file=b"text", purpose="user_data")
        return caught.value.message

    text = await harness.openai(ANSWER, use)
    assert "the gateway does not relay POST /v1/files to provider 'openai'" in str(text)
    assert harness.provider.received == []
