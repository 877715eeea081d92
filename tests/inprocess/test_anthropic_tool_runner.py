"""The anthropic SDK's tool runner, over a socket and in process."""

from __future__ import annotations

import pytest
from anthropic import AsyncAnthropic, beta_async_tool

from fastapi_aibridge.testing import Reply, ToolCall

from .harness import GatewayHarness
from .test_anthropic_messages import MODEL

pytestmark = pytest.mark.anyio

SCRIPT = [Reply(tool_calls=[ToolCall("weather", {"city": "Bern"}, "call_1")]), Reply("It rains in Bern.")]


@beta_async_tool
async def weather(city: str) -> str:
    """The weather in a city.

    Args:
        city: Its name.
    """
    return f"rain in {city}"


@pytest.mark.parametrize("streamed", [False, True], ids=["blocking", "streamed"])
async def test_the_runner_goes_to_the_end(harness: GatewayHarness, streamed: bool) -> None:
    """The tool runner runs the tool between two messages, and each message is recorded."""

    async def use(client: AsyncAnthropic) -> object:
        if streamed:
            streams = client.beta.messages.tool_runner(
                model=MODEL,
                max_tokens=99,
                messages=[{"role": "user", "content": "Bern?"}],
                tools=[weather],
                stream=True,
            )
            last = [await stream.get_final_message() async for stream in streams][-1]
        else:
            runner = client.beta.messages.tool_runner(
                model=MODEL, max_tokens=99, messages=[{"role": "user", "content": "Bern?"}], tools=[weather]
            )
            last = await runner.until_done()
        return [block.text for block in last.content if block.type == "text"]

    assert await harness.anthropic(SCRIPT, use) == ["It rains in Bern."]
    assert [record["interception"]["streaming"] for record in harness.records] == [streamed] * 4
    [call] = harness.records[0]["facts"]["tool_usages"]
    assert (call["tool"], call["arguments"], call["injected"]) == ("weather", {"city": "Bern"}, False)
    result = harness.provider.received[1].json()["messages"][-1]["content"][0]
    assert (result["tool_use_id"], result["content"]) == ("call_1", "rain in Bern")
