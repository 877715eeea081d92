"""The anthropic SDK's stream helper, over a socket and in process."""

from __future__ import annotations

import anthropic
import pytest
from anthropic import AsyncAnthropic

from fastapi_aibridge.testing import Reply

from .harness import GatewayHarness
from .test_anthropic_messages import ANSWER, HELLO, MODEL

pytestmark = pytest.mark.anyio


async def test_the_text(harness: GatewayHarness) -> None:
    """The text stream has the same pieces both ways."""

    async def use(client: AsyncAnthropic) -> object:
        async with client.messages.stream(model=MODEL, max_tokens=99, messages=HELLO) as stream:
            return [text async for text in stream.text_stream]

    assert await harness.anthropic(ANSWER, use) == ["Let", " me", " look."]
    assert harness.records[0]["ending"]["status"] == "completed"


async def test_the_final_message(harness: GatewayHarness) -> None:
    """The final message includes thinking, tool use and usage."""

    async def use(client: AsyncAnthropic) -> object:
        async with client.messages.stream(model=MODEL, max_tokens=99, messages=HELLO) as stream:
            message = await stream.get_final_message()
        return [block.type for block in message.content], message.stop_reason, message.usage.output_tokens

    assert await harness.anthropic(ANSWER, use) == (["thinking", "text", "tool_use"], "tool_use", 6)


async def test_an_error_in_the_stream(harness: GatewayHarness) -> None:
    """An error event of the upstream raises the SDK's error, after the text before it."""

    async def use(client: AsyncAnthropic) -> object:
        pieces: list[str] = []
        with pytest.raises(anthropic.APIStatusError, match="overloaded"):
            async with client.messages.stream(model=MODEL, max_tokens=99, messages=HELLO) as stream:
                pieces += [text async for text in stream.text_stream]
        return pieces

    await harness.anthropic(Reply("Half an", error="overloaded"), use)
    assert harness.records[0]["ending"]["status"] == "failed"
