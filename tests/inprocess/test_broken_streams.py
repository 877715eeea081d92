"""A broken stream must not look like a success: both SDKs raise, in process and over a socket, with every helper."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest

from fastapi_aibridge.testing import Reply

from .harness import GatewayHarness

pytestmark = pytest.mark.anyio

BROKEN = Reply("Half of the answer is", hang_up=True)
HELLO: Any = [{"role": "user", "content": "Hello"}]
CHAT: dict[str, Any] = {"model": "gpt-5", "messages": HELLO}
ANTHROPIC: dict[str, Any] = {"model": "claude", "max_tokens": 99, "messages": HELLO}
RESPONSE: dict[str, Any] = {"model": "gpt-5", "input": "Hello"}
RAISED = (openai.APIError, anthropic.APIError, httpx2.HTTPError, httpx.HTTPError)


async def read(stream: Any) -> None:
    async for _ in stream:
        pass


async def chat_create(client: openai.AsyncOpenAI) -> None:
    await read(await client.chat.completions.create(**CHAT, stream=True))


async def chat_stream(client: openai.AsyncOpenAI) -> None:
    async with client.chat.completions.stream(**CHAT) as stream:
        await read(stream)


async def chat_final(client: openai.AsyncOpenAI) -> None:
    async with client.chat.completions.stream(**CHAT) as stream:
        await stream.get_final_completion()


async def chat_until_done(client: openai.AsyncOpenAI) -> None:
    async with client.chat.completions.stream(**CHAT) as stream:
        await stream.until_done()


async def chat_raw(client: openai.AsyncOpenAI) -> None:
    raw = await client.chat.completions.with_raw_response.create(**CHAT, stream=True)
    await read(raw.parse())


async def chat_streaming_response(client: openai.AsyncOpenAI) -> None:
    async with client.chat.completions.with_streaming_response.create(**CHAT, stream=True) as response:
        await read(await response.parse())


async def responses_create(client: openai.AsyncOpenAI) -> None:
    await read(await client.responses.create(**RESPONSE, stream=True))


async def responses_stream(client: openai.AsyncOpenAI) -> None:
    async with client.responses.stream(**RESPONSE) as stream:
        await read(stream)


async def responses_final(client: openai.AsyncOpenAI) -> None:
    async with client.responses.stream(**RESPONSE) as stream:
        await stream.get_final_response()


async def responses_until_done(client: openai.AsyncOpenAI) -> None:
    async with client.responses.stream(**RESPONSE) as stream:
        await stream.until_done()


async def responses_raw(client: openai.AsyncOpenAI) -> None:
    raw = await client.responses.with_raw_response.create(**RESPONSE, stream=True)
    await read(raw.parse())


async def messages_create(client: anthropic.AsyncAnthropic) -> None:
    await read(await client.messages.create(**ANTHROPIC, stream=True))


async def messages_stream(client: anthropic.AsyncAnthropic) -> None:
    async with client.messages.stream(**ANTHROPIC) as stream:
        await read(stream)


async def messages_text(client: anthropic.AsyncAnthropic) -> None:
    async with client.messages.stream(**ANTHROPIC) as stream:
        await read(stream.text_stream)


async def messages_final(client: anthropic.AsyncAnthropic) -> None:
    async with client.messages.stream(**ANTHROPIC) as stream:
        await stream.get_final_message()


async def messages_final_text(client: anthropic.AsyncAnthropic) -> None:
    async with client.messages.stream(**ANTHROPIC) as stream:
        await stream.get_final_text()


async def messages_until_done(client: anthropic.AsyncAnthropic) -> None:
    async with client.messages.stream(**ANTHROPIC) as stream:
        await stream.until_done()


async def messages_raw(client: anthropic.AsyncAnthropic) -> None:
    raw = await client.messages.with_raw_response.create(**ANTHROPIC, stream=True)
    await read(await raw.parse())


OPENAI: list[Callable[[openai.AsyncOpenAI], Awaitable[None]]] = [
    chat_create,
    chat_stream,
    chat_final,
    chat_until_done,
    chat_raw,
    chat_streaming_response,
    responses_create,
    responses_stream,
    responses_final,
    responses_until_done,
    responses_raw,
]
MESSAGES: list[Callable[[anthropic.AsyncAnthropic], Awaitable[None]]] = [
    messages_create,
    messages_stream,
    messages_text,
    messages_final,
    messages_final_text,
    messages_until_done,
    messages_raw,
]


def raising(use: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[str]]:
    async def used(client: Any) -> str:
        with pytest.raises(RAISED) as raised:
            await use(client)
        return f"{type(raised.value).__name__}: {raised.value}"

    return used


@pytest.mark.parametrize("use", OPENAI, ids=lambda use: use.__name__)
async def test_openai(harness: GatewayHarness, use: Callable[[Any], Awaitable[None]]) -> None:
    assert "upstream" in await harness.openai(BROKEN, raising(use))
    assert {record["ending"]["status"] for record in harness.records} == {"failed"}


@pytest.mark.parametrize("use", MESSAGES, ids=lambda use: use.__name__)
async def test_anthropic(harness: GatewayHarness, use: Callable[[Any], Awaitable[None]]) -> None:
    assert "upstream" in await harness.anthropic(BROKEN, raising(use))
    assert {record["ending"]["status"] for record in harness.records} == {"failed"}


async def test_directly_they_raise_as_well(harness: GatewayHarness) -> None:
    """The SDKs raise for the same broken stream when they call the provider directly."""
    harness.provider.script = BROKEN
    async with harness.provider.serve() as url:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
            for use in (chat_create, responses_create):
                with pytest.raises(RAISED):
                    await use(client)
        async with anthropic.AsyncAnthropic(base_url=url, api_key="k", max_retries=0) as sdk:
            with pytest.raises(RAISED):
                await messages_create(sdk)
