"""Conversations with injected tools whose turns are answered by different workers, which share a Valkey server."""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import anthropic
import openai
import orjson
import pytest
from fastapi import FastAPI
from redis.asyncio import Redis

from fastapi_aibridge import AIBridge
from fastapi_aibridge.cluster import redis as cluster_redis
from fastapi_aibridge.testing import Reply, ScriptedProvider

from ...cluster.valkey import ValkeyServer
from ...formats.rounds.driving import CHAT, MESSAGES, RESPONSES, own_call
from ...formats.rounds.test_mixed_turns import outline
from ...mcp.servers import ToolServer
from ...waiting import until
from ..gateway import client
from ..gateway.client import KEY
from ..gateway.gateway import CountingRecorder, settings_for
from ..gateway.server import served
from .harness import BOB, tool

pytestmark = pytest.mark.anyio

SECRETS = [base64.urlsafe_b64encode(os.urandom(32)).decode() for _ in range(2)]
SCRIPT = [
    Reply(text="One.", tool_calls=[tool("echo", "c1", text="the-result-of-a-tool"), own_call("own")]),
    Reply(text="Two.", tool_calls=[own_call("own2")]),
    Reply(text="Done."),
    Reply(text="For Bob."),
]


class Workers:
    def __init__(self, provider: ScriptedProvider, ports: Sequence[int], bridges: Sequence[AIBridge]) -> None:
        self.provider = provider
        self.ports = ports
        self.bridges = bridges

    @property
    def upstream(self) -> list[Any]:
        return [one.json() for one in self.provider.received]

    @asynccontextmanager
    async def openai(self, worker: int, key: str = KEY) -> AsyncIterator[openai.AsyncOpenAI]:
        url = f"http://127.0.0.1:{self.ports[worker]}/ai/openai/v1"
        async with openai.AsyncOpenAI(api_key=key, base_url=url, max_retries=0) as sdk:
            yield sdk

    @asynccontextmanager
    async def anthropic(self, worker: int, key: str = KEY) -> AsyncIterator[anthropic.AsyncAnthropic]:
        url = f"http://127.0.0.1:{self.ports[worker]}/ai/anthropic"
        async with anthropic.AsyncAnthropic(api_key=key, base_url=url, max_retries=0) as sdk:
            yield sdk


@asynccontextmanager
async def workers(
    server: ToolServer, valkey: ValkeyServer, *keys: Sequence[str], script: Sequence[Reply] = SCRIPT
) -> AsyncIterator[Workers]:
    """Start a worker for each of `keys`, which are its secret keys; three by default."""
    provider, recorder = ScriptedProvider(list(script)), CountingRecorder()
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(provider.serve())
        ports, bridges = [], []
        for secret_keys in keys or (SECRETS,) * 3:
            settings = settings_for(
                url,
                client_keys={"alice": KEY, "bob": BOB},
                mcp_servers={"box": {"url": server.url}},
                redis_url=valkey.url,
                secret_keys=secret_keys,
            )
            app, aibridge = FastAPI(), AIBridge(settings, recorder=recorder)
            app.include_router(aibridge.router, prefix="/ai")
            ports.append((await stack.enter_async_context(served(app))).port)
            bridges.append(aibridge)
        yield Workers(provider, ports, bridges)


async def test_chat(server: ToolServer, valkey: ValkeyServer) -> None:
    """Each turn is answered by another worker, and the model finds all calls and results in its history."""
    messages: list[Any] = [{"role": "user", "content": "hi"}]

    async def turn(home: Workers, worker: int, key: str = KEY) -> Any:
        async with home.openai(worker, key) as sdk:
            return await sdk.chat.completions.create(model="m", messages=messages, tools=[CHAT.own_tool])  # type: ignore[list-item]

    async with workers(server, valkey) as home:
        for worker, expected in enumerate(("One.", "Two.", "Done.")):
            choice = (await turn(home, worker)).choices[0]
            assert choice.message.content == expected
            messages.append(choice.message.model_dump(exclude_none=True))
            calls = choice.message.tool_calls or []
            messages += [{"role": "tool", "tool_call_id": one.id, "content": "mine"} for one in calls]
        words = ["user hi", "assistant One.", "call c1", "call own", "result c1", "result own"]
        assert outline(CHAT, home.upstream[1]) == words
        assert outline(CHAT, home.upstream[2]) == [*words, "assistant Two.", "call own2", "result own2"]
        await turn(home, 0, BOB)
        assert "call c1" not in outline(CHAT, home.upstream[3]), "it is another's"


async def test_messages(server: ToolServer, valkey: ValkeyServer) -> None:
    messages: list[Any] = [{"role": "user", "content": "hi"}]
    async with workers(server, valkey) as home:
        for worker in range(3):
            async with home.anthropic(worker) as sdk:
                message = await sdk.messages.create(
                    model="m",
                    max_tokens=99,
                    messages=messages,
                    tools=[MESSAGES.own_tool],  # type: ignore[list-item]
                )
            uses = [block for block in message.content if block.type == "tool_use"]
            messages.append({"role": "assistant", "content": [block.to_dict() for block in message.content]})
            results = [{"type": "tool_result", "tool_use_id": one.id, "content": "mine"} for one in uses]
            messages.append({"role": "user", "content": results or "thanks"})
        words = ["user hi", "assistant One.", "call c1", "call own", "result c1", "result own"]
        assert outline(MESSAGES, home.upstream[1]) == words
        assert outline(MESSAGES, home.upstream[2]) == [*words, "assistant Two.", "call own2", "result own2"]


async def test_responses_that_the_provider_remembers(streamed: bool, server: ToolServer, valkey: ValkeyServer) -> None:
    """Another worker's `previous_response_id` is resolved, and the results that the provider lacks are added."""
    script = [
        Reply(text="One.", tool_calls=[tool("echo", "c1", text="x")]),
        Reply(text="Two.", tool_calls=[tool("echo", "c2", text="y"), own_call("own")]),
        Reply(text="Done."),
    ]
    asked: dict[str, Any] = {"model": "m", "tools": [RESPONSES.own_tool]}
    outputs: list[Any] = [{"type": "function_call_output", "call_id": "own", "output": "mine"}]
    async with workers(server, valkey, script=script) as home:
        async with home.openai(0) as sdk:
            if streamed:
                async with sdk.responses.stream(**asked, input="hi") as stream:
                    first = await stream.get_final_response()
            else:
                first = await sdk.responses.create(**asked, input="hi")
        async with home.openai(1) as sdk:
            second = await sdk.responses.create(**asked, input=outputs, previous_response_id=first.id)
        assert second.output_text == "Done."
        assert second.previous_response_id == first.id
        named = home.upstream[2]["previous_response_id"]
        assert (named != first.id) == streamed
        assert outline(RESPONSES, home.upstream[2]) == ["result own", "result c2"]
        # All workers resolve the stored response's id.
        path = f"/ai/openai/v1/responses/{first.id}"
        await client.request(home.ports[2], "GET", path)
        assert home.provider.received[-1].path == f"/v1/responses/{named}"
        body = orjson.dumps({"model": "m", "previous_response_id": first.id})
        await client.request(home.ports[2], "POST", "/ai/openai/v1/responses/input_tokens", body)
        assert home.provider.received[-1].json()["previous_response_id"] == named


async def two_turns(home: Workers) -> list[str]:
    """Run two turns on different workers; return the history that the second one sent upstream."""
    messages: list[Any] = [{"role": "user", "content": "hi"}]
    for worker in range(2):
        async with home.openai(worker) as sdk:
            answer = await sdk.chat.completions.create(model="m", messages=messages)
        messages.append(answer.choices[0].message.model_dump(exclude_none=True))
        messages.append({"role": "tool", "tool_call_id": "own", "content": "mine"})
    return outline(CHAT, home.upstream[1])


async def test_keys_can_be_replaced(server: ToolServer, valkey: ValkeyServer) -> None:
    """A worker that encrypts with a new key reads entries encrypted with an old one."""
    async with workers(server, valkey, SECRETS[:1], [SECRETS[1], SECRETS[0]]) as home:
        assert "result c1" in await two_turns(home)


async def test_without_the_key_nothing_is_read(server: ToolServer, valkey: ValkeyServer) -> None:
    async with workers(server, valkey, SECRETS[:1], SECRETS[1:]) as home:
        assert "result c1" not in await two_turns(home)


async def test_without_secret_keys_each_process_remembers_alone(
    server: ToolServer, valkey: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Without secret keys nothing of a conversation goes to Redis; the log and `/readyz?verbose` say so."""
    async with workers(server, valkey, (), ()) as home:
        assert "result c1" not in await two_turns(home)
        assert "AIBRIDGE_SECRET_KEYS is not set" in caplog.text
        answer = await client.request(home.ports[0], "GET", "/ai/readyz?verbose")
        assert orjson.loads(answer.body)["components"]["tool_memory"] == "in this process only: SECRET_KEYS is not set"
        shared = home.bridges[0]._host.runtime.shared.redis
        assert shared is not None
        assert await shared.call(lambda redis: redis.dbsize()) == 0


async def ending_and_dump(key: bytes, redis: Redis) -> tuple[int, bytes]:
    return await redis.ttl(key), await redis.dump(key) or b""


async def test_what_redis_holds(server: ToolServer, valkey: ValkeyServer) -> None:
    """Entries in Redis are encrypted, under digests and with an expiry, and are deleted with their initiator."""
    async with workers(server, valkey) as home:
        await two_turns(home)
        runtime = home.bridges[0]._host.runtime
        shared = runtime.shared.redis
        assert shared is not None
        keys: list[Any] = await shared.call(lambda redis: redis.keys("*"))
        assert len(keys) == 2
        for key in keys:
            assert b"alice" not in key
            ends, dump = await shared.call(partial(ending_and_dump, key))
            assert 86000 < ends <= 86400
            assert b"the-result-of-a-tool" not in dump
            assert b"bmcp_box_echo" not in dump
        others = home.bridges[1]._host.runtime._engine.tool_memory._held
        assert others
        await runtime.forget("alice")
        await until(lambda: not others)
        assert await shared.call(lambda redis: redis.dbsize()) == 0


async def test_outage_of_redis_loses_no_turn(
    server: ToolServer, own_valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """During an outage of Redis each turn is answered, though without results that another worker has."""
    monkeypatch.setattr(cluster_redis, "PROBE_EVERY", 0.05)
    async with workers(server, own_valkey) as home:
        own_valkey.stop()
        assert "result c1" not in await two_turns(home)
        own_valkey.start()
        shared = home.bridges[1]._host.runtime.shared.redis
        assert shared is not None
        await until(lambda: shared.available)
