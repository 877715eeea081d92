"""Broken streams, read as the documentation of handlers recommends, with both SDKs' plain streams and helpers."""

from __future__ import annotations

from typing import Any

import anthropic
import httpx2
import openai
import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from fastapi_aibridge.testing import Reply

from .harness import GatewayHarness
from .test_anthropic_messages import HELLO, MODEL

pytestmark = pytest.mark.anyio
CHAT: Any = {"model": "gpt-5", "messages": [{"role": "user", "content": "hi"}]}
WHOLE = ("response.completed", "response.incomplete")


class BrokeOff(Exception):
    """Raised by a handler for an incomplete response."""


async def responses_create(client: AsyncOpenAI) -> str:
    text, whole = "", False
    async for event in await client.responses.create(model="gpt-5", input="hi", stream=True):
        text += event.delta if event.type == "response.output_text.delta" else ""
        whole = whole or event.type in WHOLE
    if not whole:
        raise BrokeOff
    return text


async def responses_stream(client: AsyncOpenAI) -> str:
    text, whole = "", False
    async with client.responses.stream(model="gpt-5", input="hi") as stream:
        async for event in stream:
            text += event.delta if event.type == "response.output_text.delta" else ""
            whole = whole or event.type in WHOLE
    if not whole:
        raise BrokeOff
    return text


async def chat_create(client: AsyncOpenAI) -> str:
    text, whole = "", False
    async for chunk in await client.chat.completions.create(**CHAT, stream=True):
        for choice in chunk.choices:
            text += choice.delta.content or ""
            whole = whole or choice.finish_reason is not None
    if not whole:
        raise BrokeOff
    return text


async def chat_stream(client: AsyncOpenAI) -> str:
    text, whole = "", False
    async with client.chat.completions.stream(**CHAT) as stream:
        async for event in stream:
            if event.type == "chunk":
                for choice in event.chunk.choices:
                    text += choice.delta.content or ""
                    whole = whole or choice.finish_reason is not None
    if not whole:
        raise BrokeOff
    return text


async def messages_create(client: AsyncAnthropic) -> str:
    text, whole = "", False
    async for event in await client.messages.create(model=MODEL, max_tokens=99, messages=HELLO, stream=True):
        if event.type == "content_block_delta" and event.delta.type == "text_delta":
            text += event.delta.text
        whole = whole or event.type == "message_stop"
    if not whole:
        raise BrokeOff
    return text


async def messages_stream(client: AsyncAnthropic) -> str:
    text, whole = "", False
    async with client.messages.stream(model=MODEL, max_tokens=99, messages=HELLO) as stream:
        async for event in stream:
            text += event.text if event.type == "text" else ""
            whole = whole or event.type == "message_stop"
    if not whole:
        raise BrokeOff
    return text


FORMS = [responses_create, responses_stream, chat_create, chat_stream, messages_create, messages_stream]
each = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)


async def through(harness: GatewayHarness, reply: Reply, form: Any) -> object:
    async def use(client: Any) -> object:
        try:
            return await form(client)
        except Exception:  # noqa: BLE001 - the SDKs raise different errors; any will do
            return BrokeOff

    ask = harness.anthropic if form.__name__.startswith("messages") else harness.openai
    return await ask(reply, use)


@each
async def test_a_whole_answer_is_read(harness: GatewayHarness, form: Any) -> None:
    """A complete response gives its text and no error."""
    assert await through(harness, Reply("All of it."), form) == "All of it."


@each
@pytest.mark.parametrize(
    "broken",
    [Reply("Half an", error="overloaded"), Reply("Half an answer that goes on", hang_up=True)],
    ids=["error event", "connection closed"],
)
async def test_half_an_answer_is_an_error(harness: GatewayHarness, form: Any, broken: Reply) -> None:
    """A broken response is an error in process and over HTTP, after an error event as after a hang-up."""
    assert await through(harness, broken, form) is BrokeOff
    assert harness.records[0]["ending"]["status"] == "failed"


# In process the caller needs no check: the stream raises, as it does with the provider itself.


async def naive_responses(harness: GatewayHarness) -> None:
    async for _ in await harness.bridge.openai().responses.create(model="gpt-5", input="hi", stream=True):
        pass


async def naive_responses_helper(harness: GatewayHarness) -> None:
    async with harness.bridge.openai().responses.stream(model="gpt-5", input="hi") as stream:
        async for _ in stream:
            pass


async def final_response(harness: GatewayHarness) -> None:
    async with harness.bridge.openai().responses.stream(model="gpt-5", input="hi") as stream:
        await stream.get_final_response()


async def naive_chat(harness: GatewayHarness) -> None:
    async for _ in await harness.bridge.openai().chat.completions.create(**CHAT, stream=True):
        pass


async def final_completion(harness: GatewayHarness) -> None:
    async with harness.bridge.openai().chat.completions.stream(**CHAT) as stream:
        await stream.get_final_completion()


async def naive_messages(harness: GatewayHarness) -> None:
    client = harness.bridge.anthropic()
    async for _ in await client.messages.create(model=MODEL, max_tokens=99, messages=HELLO, stream=True):
        pass


async def final_message(harness: GatewayHarness) -> None:
    async with harness.bridge.anthropic().messages.stream(model=MODEL, max_tokens=99, messages=HELLO) as stream:
        await stream.get_final_message()


async def text_of_messages(harness: GatewayHarness) -> None:
    async with harness.bridge.anthropic().messages.stream(model=MODEL, max_tokens=99, messages=HELLO) as stream:
        async for _ in stream.text_stream:
            pass


async def lines(harness: GatewayHarness) -> None:
    body = {"model": "gpt-5", "input": "hi", "stream": True}
    async with harness.bridge.http_client("openai").stream("POST", "/v1/responses", json=body) as response:
        async for _ in response.aiter_lines():
            pass


NAIVE = [
    naive_responses,
    naive_responses_helper,
    final_response,
    naive_chat,
    final_completion,
    naive_messages,
    final_message,
    text_of_messages,
    lines,
]


@pytest.mark.parametrize("read", NAIVE, ids=lambda read: read.__name__)
async def test_a_stream_that_breaks_raises(harness: GatewayHarness, read: Any) -> None:
    """A handler without checks gets an error for a broken response, and none for a complete one."""
    harness.provider.script = lambda _: Reply("All of it.")
    await read(harness)
    harness.provider.script = lambda _: Reply("Half an answer that goes on", hang_up=True)
    with pytest.raises((openai.APIError, anthropic.APIError, httpx2.RemoteProtocolError)):
        await read(harness)
    assert harness.records[-1]["ending"]["status"] == "failed"
