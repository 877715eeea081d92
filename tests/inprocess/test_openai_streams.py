"""The openai SDK's stream helpers, over a socket and in process."""

from __future__ import annotations

import pytest
from openai import AsyncOpenAI

from fastapi_aibridge.testing import Reply, ToolCall

from .harness import GatewayHarness
from .test_openai_chat import HELLO

pytestmark = pytest.mark.anyio

ANSWER = Reply("Let me look.", tool_calls=[ToolCall("read_file", {"path": "README.md"}, "call_1")])


async def test_chat(harness: GatewayHarness) -> None:
    """The chat helper assembles the completion from its events."""

    async def use(client: AsyncOpenAI) -> object:
        async with client.chat.completions.stream(model="gpt-5", messages=HELLO) as stream:
            deltas = [event.delta async for event in stream if event.type == "content.delta"]
            [choice] = (await stream.get_final_completion()).choices
        return deltas, choice.message.content, [call.function.name for call in choice.message.tool_calls or ()]

    assert await harness.openai(ANSWER, use) == (["", "Let", " me", " look."], "Let me look.", ["read_file"])
    assert harness.records[0]["interception"]["streaming"] is True


async def test_responses(harness: GatewayHarness) -> None:
    """The Responses helper assembles the response from its events."""

    async def use(client: AsyncOpenAI) -> object:
        async with client.responses.stream(model="gpt-5", input="Hello") as stream:
            deltas = [event.delta async for event in stream if event.type == "response.output_text.delta"]
            response = await stream.get_final_response()
        return deltas, response.output_text, response.status

    assert await harness.openai(ANSWER, use) == (["Let", " me", " look."], "Let me look.", "completed")
    assert harness.records[0]["ending"]["status"] == "completed"


async def test_the_end_alone(harness: GatewayHarness) -> None:
    """A helper that is asked only for the final response reads the stream to its end."""

    async def use(client: AsyncOpenAI) -> object:
        async with client.responses.stream(model="gpt-5", input="Hello") as stream:
            return (await stream.get_final_response()).output_text

    assert await harness.openai(ANSWER, use) == "Let me look."
