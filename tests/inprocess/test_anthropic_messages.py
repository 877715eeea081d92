"""The anthropic SDK's messages, over a socket and in process."""

from __future__ import annotations

import anthropic
import pytest
from anthropic import AsyncAnthropic
from anthropic.types import MessageParam

from fastapi_aibridge.testing import Reply, ToolCall, Usage

from .harness import GatewayHarness

pytestmark = pytest.mark.anyio

HELLO: list[MessageParam] = [{"role": "user", "content": "Hello"}]
MODEL = "claude-sonnet-5"
CALL = ToolCall("read_file", {"path": "README.md"}, "call_1")
ANSWER = Reply("Let me look.", thinking="A file.", tool_calls=[CALL], usage=Usage(cache_read_tokens=2))


async def test_a_message(harness: GatewayHarness) -> None:
    """A blocking message has its blocks, signed thinking included, and its usage."""

    async def use(client: AsyncAnthropic) -> object:
        message = await client.messages.create(model=MODEL, max_tokens=99, messages=HELLO)
        return [block.model_dump() for block in message.content], message.usage.cache_read_input_tokens

    blocks, cached = await harness.anthropic(ANSWER, use)
    assert [block["type"] for block in blocks] == ["thinking", "text", "tool_use"]
    assert blocks[0]["signature"]
    assert cached == 2
    assert harness.records[0]["facts"]["thoughts"] == [{"source": "thinking", "text": "A file.", "truncated": False}]


async def test_more_tokens_than_ten_minutes_give(harness: GatewayHarness) -> None:
    """A large `max_tokens` needs no stream in process: the SDK's reason to refuse it is idle sockets."""
    harness.provider.script = ANSWER
    message = await harness.bridge.anthropic().messages.create(model=MODEL, max_tokens=64_000, messages=HELLO)
    assert message.stop_reason == "tool_use"


async def test_a_stream(harness: GatewayHarness) -> None:
    """A streamed message has the same events both ways."""

    async def use(client: AsyncAnthropic) -> object:
        stream = await client.messages.create(model=MODEL, max_tokens=99, messages=HELLO, stream=True)
        return [event.type async for event in stream]

    events = await harness.anthropic(ANSWER, use)
    assert isinstance(events, list)
    assert (events[0], events[-1]) == ("message_start", "message_stop")
    assert harness.records[0]["ending"]["status"] == "completed"


async def test_tokens_are_counted(harness: GatewayHarness) -> None:
    """Counting tokens is relayed without a record."""

    async def use(client: AsyncAnthropic) -> object:
        return (await client.messages.count_tokens(model=MODEL, messages=HELLO)).input_tokens

    assert await harness.anthropic(ANSWER, use) == 1
    assert harness.records == []


@pytest.mark.parametrize("streamed", [False, True], ids=["blocking", "streamed"])
async def test_a_refusal(harness: GatewayHarness, streamed: bool) -> None:
    """A refusal of the upstream raises the SDK's error with the upstream's request id."""

    async def use(client: AsyncAnthropic) -> object:
        with pytest.raises(anthropic.RateLimitError, match="slow down") as caught:
            await client.messages.create(model=MODEL, max_tokens=99, messages=HELLO, stream=streamed)
        assert caught.value.request_id
        return caught.value.status_code

    assert await harness.anthropic(Reply(status=429, error="slow down"), use) == 429
    assert harness.records[0]["ending"]["upstream_status"] == 429


async def test_what_is_not_relayed_says_so(harness: GatewayHarness) -> None:
    """Batches, like other unsupported routes, are refused with an error that names the route."""

    async def use(client: AsyncAnthropic) -> object:
        with pytest.raises(anthropic.NotFoundError) as caught:
            await client.messages.batches.list()
        return caught.value.message

    assert "does not relay GET /v1/messages/batches" in str(await harness.anthropic(ANSWER, use))
