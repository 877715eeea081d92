"""In-process streams: delivered at once, read with backpressure, and ended when nobody reads them."""

from __future__ import annotations

import asyncio
import contextlib
import gc

import anyio
import openai
import pytest
from openai import AsyncStream
from openai.types.chat import ChatCompletionChunk

from fastapi_aibridge import RequestBridge, Status
from fastapi_aibridge.testing import Reply

from ..e2e.gateway.bodies import CHAT, MESSAGES, sse
from ..e2e.gateway.upstream import Call
from .harness import GatewayHarness
from .held import LIMIT, Held, held_bridge
from .test_anthropic_messages import HELLO as ANTHROPIC_HELLO
from .test_openai_chat import HELLO

pytestmark = pytest.mark.anyio


async def streamed(bridge: RequestBridge) -> AsyncStream[ChatCompletionChunk]:
    return await bridge.openai().chat.completions.create(model="gpt-5", messages=HELLO, stream=True)


async def begun(held: Held) -> tuple[AsyncStream[ChatCompletionChunk], Call]:
    """Return a stream with one event read, and the upstream's side of it."""
    asking = asyncio.create_task(streamed(held.bridge))
    call = await held.upstream.call()
    await call.stream(CHAT.events[0])
    stream = await asyncio.wait_for(asking, LIMIT)
    await asyncio.wait_for(anext(stream), LIMIT)
    return stream, call


async def test_each_event_comes_before_the_next_is_sent() -> None:
    """The caller gets each event before the upstream sends the next one."""
    async with held_bridge() as held:
        asking = asyncio.create_task(streamed(held.bridge))
        call = await held.upstream.call()
        await call.stream()
        seen = []
        for event in CHAT.events[:-1]:
            await call.chunk(event)
            stream = await asyncio.wait_for(asking, LIMIT)
            seen.append((await asyncio.wait_for(anext(stream), LIMIT)).choices[0].delta.content)
        assert seen == ["", "one", " two", None]
        await call.chunk(CHAT.events[-1])
        await call.end()
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(anext(stream), LIMIT)
        assert (await held.ends.next()).status is Status.COMPLETED


async def test_the_record_is_there_when_the_answer_is() -> None:
    """When a response has been read to its end, its interception is recorded as completed."""
    async with held_bridge() as held:
        asking = asyncio.create_task(
            held.bridge.anthropic().messages.create(model="m-1", max_tokens=9, messages=ANTHROPIC_HELLO)
        )
        await (await held.upstream.call()).answer(MESSAGES.blocking)
        await asking
        [record] = held.ends.records
        assert record.ending is not None
        assert record.ending.status is Status.COMPLETED


async def test_closing_the_stream_reaches_the_upstream() -> None:
    """A stream that is closed early closes the upstream connection, and the interception is cancelled."""
    async with held_bridge() as held:
        stream, call = await begun(held)
        await stream.close()
        await call.until_gone()
        assert (await held.ends.next()).status is Status.CANCELLED


async def test_leaving_the_loop_and_the_block_reaches_the_upstream() -> None:
    """Leaving the loop and then the stream's `async with` early closes the upstream connection."""
    async with held_bridge() as held:
        stream, call = await begun(held)
        await call.chunk(CHAT.events[1])
        async with stream:
            async for _ in stream:
                break
        await call.until_gone()
        assert (await held.ends.next()).status is Status.CANCELLED


async def test_a_stream_that_is_forgotten_is_ended() -> None:
    """A stream without references closes the upstream connection."""
    async with held_bridge() as held:
        stream, call = await begun(held)
        del stream
        gc.collect()
        await call.until_gone()
        assert (await held.ends.next()).status is Status.CANCELLED


@pytest.mark.parametrize("when", ["before the answer", "in the stream"])
async def test_cancelling_the_task_reaches_the_upstream(when: str) -> None:
    """Cancelling the reading task closes the upstream connection, before and during the response."""
    async with held_bridge() as held:

        async def read() -> None:
            async for _ in await streamed(held.bridge):
                pass

        reading = asyncio.create_task(read())
        call = await held.upstream.call()
        if when == "in the stream":
            await call.stream(CHAT.events[0])
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await call.until_gone()
        assert (await held.ends.next()).status is Status.CANCELLED


async def test_a_cancel_scope_reaches_the_upstream() -> None:
    """An anyio cancel scope, which cancels repeatedly, ends a call like a single cancellation."""
    async with held_bridge() as held, anyio.create_task_group() as tasks:

        async def read() -> None:
            async for _ in await streamed(held.bridge):
                pass

        tasks.start_soon(read)
        call = await held.upstream.call()
        tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await call.until_gone()
            assert (await held.ends.next()).status is Status.CANCELLED


async def test_a_timeout_of_the_client() -> None:
    """The SDK's timeout applies in process as over a socket."""
    async with held_bridge() as held:
        asking = asyncio.create_task(
            held.bridge.openai().with_options(timeout=0.5).chat.completions.create(model="m-1", messages=HELLO)
        )
        call = await held.upstream.call()
        with pytest.raises(openai.APITimeoutError):
            await asking
        await call.until_gone()
        assert (await held.ends.next()).status is Status.CANCELLED


async def test_a_slow_reader_slows_the_upstream() -> None:
    """A caller that does not read stops the upstream after a bounded number of bytes."""
    event = sse({"id": "chat-1", "choices": [{"index": 0, "delta": {"content": "x" * 65_536}}]})
    async with held_bridge() as held:
        asking = asyncio.create_task(streamed(held.bridge))
        call = await held.upstream.call()
        await call.stream(CHAT.events[0])
        stream = await asking
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 1000:
                async with asyncio.timeout(0.5):
                    await call.chunk(event)
                sent += 1
        assert sent < 500
        await stream.close()
        await call.until_gone()


async def test_an_upstream_that_breaks_off_is_the_sdks_error() -> None:
    """A passed-through response that breaks off raises a connection error of the SDK."""
    async with held_bridge() as held:
        asking = asyncio.create_task(held.bridge.openai().models.retrieve("gpt-5"))
        call = await held.upstream.call()
        await call.head(200, [("Content-Type", "application/json"), ("Content-Length", "100")])
        await call.write(b'{"object": ')
        call.close()
        with pytest.raises(openai.APIConnectionError):
            await asking


async def test_a_bridge_that_closes_tells_its_callers() -> None:
    """A bridge that closes ends its streams with an error, and refuses later calls with the same error."""
    async with held_bridge() as held:
        stream, _ = await begun(held)
        closing = asyncio.create_task(held.aibridge.pool.shutdown())
        with pytest.raises(openai.APIError, match="closing this session"):
            await asyncio.wait_for(anext(stream), LIMIT)
        await closing
        with pytest.raises(openai.InternalServerError, match="closing this session"):
            await streamed(held.bridge)


async def test_a_hundred_streams_at_once(harness: GatewayHarness) -> None:
    """A hundred concurrent streams each get their own response and one record."""
    harness.provider.script = lambda received: Reply(f"Hello, {received.json()['input']}. " * 20)

    async def read(number: int) -> str:
        async with harness.bridge.openai().responses.stream(model="gpt-5", input=f"caller {number}") as stream:
            return (await stream.get_final_response()).output_text

    texts = await asyncio.gather(*(read(number) for number in range(100)))
    assert texts == [f"Hello, caller {number}. " * 20 for number in range(100)]
    endings = [record.ending.status for record in harness.recorder.records if record.ending]
    assert endings == [Status.COMPLETED] * 100
