"""The openai SDK's chat completions, over a socket and in process."""

from __future__ import annotations

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from fastapi_aibridge.testing import Reply, ToolCall, Usage

from .harness import GatewayHarness

pytestmark = pytest.mark.anyio

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]
READ: ChatCompletionToolParam = {"type": "function", "function": {"name": "read_file", "parameters": {}}}
ANSWER = Reply("Hello, Alice.", usage=Usage(input_tokens=8, output_tokens=3, cache_read_tokens=2))


async def test_a_completion(harness: GatewayHarness) -> None:
    """A blocking completion has its text and usage."""

    async def use(client: AsyncOpenAI) -> object:
        answer = await client.chat.completions.create(model="gpt-5", messages=HELLO)
        assert answer.usage
        return answer.choices[0].message.content, answer.choices[0].finish_reason, answer.usage.total_tokens

    assert await harness.openai(ANSWER, use) == ("Hello, Alice.", "stop", 13)
    assert harness.records[0]["facts"]["prompts"] == [{"text": "Hello", "source": "user", "truncated": False}]
    assert harness.records[0]["ending"]["status"] == "completed"


async def test_a_stream(harness: GatewayHarness) -> None:
    """A stream has the same pieces both ways, without the usage that the client did not ask for."""

    async def use(client: AsyncOpenAI) -> object:
        stream = await client.chat.completions.create(model="gpt-5", messages=HELLO, stream=True)
        return [chunk.choices[0].delta.content async for chunk in stream]

    assert await harness.openai(ANSWER, use) == ["", "Hello,", " Alice.", None]
    assert harness.records[0]["facts"]["token_usages"][0]["output_tokens"] == 3


async def test_a_tool_call(harness: GatewayHarness) -> None:
    """A call of the client's own tool is relayed and recorded."""
    call = ToolCall("read_file", {"path": "README.md"}, "call_1")

    async def use(client: AsyncOpenAI) -> object:
        answer = await client.chat.completions.create(model="gpt-5", messages=HELLO, tools=[READ])
        return [one.model_dump() for one in answer.choices[0].message.tool_calls or ()]

    [made] = await harness.openai(Reply(tool_calls=[call]), use)
    assert made["function"] == {"name": "read_file", "arguments": '{"path":"README.md"}'}
    assert harness.records[0]["facts"]["tool_usages"][0]["arguments"] == {"path": "README.md"}


async def test_the_raw_response(harness: GatewayHarness) -> None:
    """The helper for raw responses shows status, headers and the interception id."""

    async def use(client: AsyncOpenAI) -> object:
        raw = await client.chat.completions.with_raw_response.create(model="gpt-5", messages=HELLO)
        assert raw.headers["x-aibridge-interception-id"]
        return raw.status_code, raw.headers["content-type"], raw.parse().choices[0].message.content

    assert await harness.openai(ANSWER, use) == (200, "application/json", "Hello, Alice.")


async def test_the_streaming_response(harness: GatewayHarness) -> None:
    """The helper for streaming responses yields the lines as they arrive."""

    async def use(client: AsyncOpenAI) -> object:
        create = client.chat.completions.with_streaming_response.create
        async with create(model="gpt-5", messages=HELLO, stream=True) as response:
            return [line.partition("{")[0] async for line in response.iter_lines() if line]

    assert await harness.openai(ANSWER, use) == ["data: "] * 4 + ["data: [DONE]"]


@pytest.mark.parametrize("streamed", [False, True], ids=["blocking", "streamed"])
async def test_a_refusal(harness: GatewayHarness, streamed: bool) -> None:
    """A refusal of the upstream raises the SDK's error after a single attempt."""

    async def use(client: AsyncOpenAI) -> object:
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(model="gpt-5", messages=HELLO, stream=streamed)
        return caught.value.message, caught.value.code, caught.value.response.headers["retry-after"]

    script = Reply(status=429, error="slow down", headers={"Retry-After": "7"})
    message, *rest = await harness.openai(script, use)
    assert "slow down" in message
    assert rest == ["rate_limit_exceeded", "7"]
    assert harness.records[0]["ending"]["status"] == "failed"
    assert len(harness.provider.received) == 2


async def test_an_error_in_the_stream(harness: GatewayHarness) -> None:
    """An error event in a stream is raised after the pieces before it."""

    async def use(client: AsyncOpenAI) -> object:
        pieces: list[str | None] = []
        stream = await client.chat.completions.create(model="gpt-5", messages=HELLO, stream=True)
        with pytest.raises(openai.APIError, match="overloaded"):  # noqa: PT012 - the pieces before the error count
            async for chunk in stream:
                pieces.append(chunk.choices[0].delta.content)
        return pieces

    assert await harness.openai(Reply("Half an", error="overloaded"), use) == ["", "Half", " an"]


async def test_a_stream_that_breaks_off(harness: GatewayHarness) -> None:
    """A stream that the upstream breaks off raises the gateway's error event."""

    async def use(client: AsyncOpenAI) -> object:
        with pytest.raises(openai.APIError) as caught:
            async for _ in await client.chat.completions.create(model="gpt-5", messages=HELLO, stream=True):
                pass
        return caught.value.message

    assert "upstream" in str(await harness.openai(Reply("Half an", hang_up=True), use))
    assert harness.records[0]["ending"]["status"] == "failed"
