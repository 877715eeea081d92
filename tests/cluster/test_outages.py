"""A provider's outage that one worker observes and the others learn about."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest
from fastapi import FastAPI

from fastapi_aibridge import AIBridge, MemoryRecorder
from fastapi_aibridge.upstream.breaker import CircuitState

from ..upstream.app import ADMIN, CHAT, settings_for
from ..upstream.clock import MovableClock
from ..upstream.raw import Answer, RawUpstream
from ..waiting import until
from .valkey import ValkeyServer

pytestmark = pytest.mark.anyio

OK = Answer(200, b'{"id":"c1","object":"chat.completion","choices":[]}')
DOWN = Answer(503, b"{}")
LIMITED = Answer(429, b"{}", {"retry-after": "20"})


class Worker:
    def __init__(self, aibridge: AIBridge, client: httpx.AsyncClient) -> None:
        self.aibridge = aibridge
        self.client = client

    @property
    def provider(self) -> Any:
        (provider,) = self.aibridge.pool.providers
        return provider

    async def chat(self, caller: str = "alice") -> int:
        headers = {"authorization": f"Bearer key-of-{caller}"}
        return (await self.client.post(CHAT, headers=headers, json={"model": "gpt-5", "messages": []})).status_code

    @property
    def listens(self) -> bool:
        shared = self.aibridge._host.runtime.shared.redis
        return shared is not None and shared._is_listening

    async def reload(self) -> None:
        assert (await self.client.post("/ai/admin/reload", headers=ADMIN)).status_code == 200


@asynccontextmanager
async def worker(upstream: RawUpstream, valkey: ValkeyServer, **provider: Any) -> AsyncIterator[Worker]:
    settings = settings_for(upstream, provider=provider, redis_url=valkey.url)
    aibridge, app = AIBridge(settings, recorder=MemoryRecorder()), FastAPI()
    app.include_router(aibridge.router, prefix="/ai")
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
    ):
        one = Worker(aibridge, client)
        await until(lambda: one.listens)
        yield one


BREAKER = {"failure_threshold": 2, "timeout": 30}


async def test_breaker_opens_everywhere(valkey: ValkeyServer) -> None:
    """A breaker that opens opens in the other workers too; each probes and closes by itself."""
    async with (
        RawUpstream(DOWN, DOWN, OK) as upstream,
        worker(upstream, valkey, circuit_breaker=BREAKER) as one,
        worker(upstream, valkey, circuit_breaker=BREAKER) as two,
    ):
        clock = MovableClock()
        one.provider.breakers._clock = two.provider.breakers._clock = clock
        assert [await one.chat("alice"), await one.chat("bob")] == [503, 503]
        assert len(upstream.requests) == 2
        await until(lambda: any(circuit.state is CircuitState.OPEN for circuit in two.provider.breakers))
        assert await two.chat() == 503
        assert len(upstream.requests) == 2
        clock.now += 31
        assert await two.chat() == 200
        assert [circuit.state for circuit in two.provider.breakers] == [CircuitState.CLOSED]
        assert [circuit.state for circuit in one.provider.breakers] == [CircuitState.HALF_OPEN]
        assert await one.chat() == 200


async def test_one_principals_own_breaker_stays_here(valkey: ValkeyServer) -> None:
    """A breaker that a single caller can open does not affect other workers."""
    async with (
        RawUpstream(DOWN) as upstream,
        worker(upstream, valkey, circuit_breaker=BREAKER) as one,
        worker(upstream, valkey, circuit_breaker=BREAKER) as two,
    ):
        for _ in range(3):
            assert await one.chat("alice") == 503
        before = len(upstream.requests)
        await one.aibridge._host.runtime.shared.outages.aclose()  # type: ignore[union-attr]
        await two.chat("bob")
        assert len(upstream.requests) == before + 1


async def test_key_rests_everywhere(valkey: ValkeyServer) -> None:
    """A resting key rests in all workers, even after a reload; the message does not contain the key."""
    async with (
        RawUpstream(LIMITED, OK) as upstream,
        worker(upstream, valkey) as one,
        worker(upstream, valkey) as two,
    ):
        await one.reload()
        heard: list[bytes] = []
        shared = two.aibridge._host.runtime.shared.redis
        assert shared is not None
        shared.subscribe("outages", heard.append)
        assert await one.chat() == 200
        limited, taken = upstream.keys
        await until(lambda: heard)
        resting = [state.resting_for > 15 for state in two.provider.keys]
        assert resting.count(True) == 1
        assert limited.encode() not in heard[0]
        assert await two.chat() == 200
        assert upstream.keys[-1] == taken


async def test_a_worker_that_starts_later_hears_of_it(own_valkey: ValkeyServer) -> None:
    """A worker that starts later learns of an open breaker for the remaining time, and not of one that is over."""
    async with RawUpstream(DOWN, DOWN, OK) as upstream:
        async with worker(upstream, own_valkey, circuit_breaker=BREAKER) as one:
            assert [await one.chat("alice"), await one.chat("bob")] == [503, 503]
            await one.aibridge._host.runtime.shared.outages.aclose()  # type: ignore[union-attr]
        async with worker(upstream, own_valkey, circuit_breaker=BREAKER) as late:
            await until(lambda: any(circuit.state is CircuitState.OPEN for circuit in late.provider.breakers))
            (circuit,) = late.provider.breakers
            assert 20 < circuit.retry_in <= 30
            assert await late.chat() == 503
            assert len(upstream.requests) == 2


async def test_keys_that_rest_are_known_to_a_worker_that_starts_later(own_valkey: ValkeyServer) -> None:
    """Redis keeps resting keys by their digest until their rest ends, for workers that start later."""
    async with RawUpstream(LIMITED, OK) as upstream:
        async with worker(upstream, own_valkey) as one:
            assert await one.chat() == 200
            limited, taken = upstream.keys
            shared = one.aibridge._host.runtime.shared
            assert shared.redis is not None
            assert shared.outages is not None
            await shared.outages.aclose()
            key = shared.redis.key("outages")
            assert 15_000 < await shared.redis.call(lambda redis: redis.pttl(key)) <= 20_000
            kept = await shared.redis.call(lambda redis: redis.zrange(key, 0, -1))
            assert limited.encode() not in kept[0]
        async with worker(upstream, own_valkey) as late:
            await until(lambda: any(state.resting_for > 15 for state in late.provider.keys))
            assert await late.chat() == 200
            assert upstream.keys[-1] == taken


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"nonsense",
        msgspec.msgpack.encode(({"type": "opened"}, 1.0)),
        msgspec.msgpack.encode(({"type": "opened", "provider": "openai", "route": "x", "model": "y"}, 1e9)),
        msgspec.msgpack.encode(({"type": "rested", "provider": "openai", "key": "x"}, float("nan"))),
    ],
)
async def test_message_that_makes_no_sense(valkey: ValkeyServer, message: bytes) -> None:
    """An invalid message is ignored."""
    async with RawUpstream(OK) as upstream, worker(upstream, valkey) as one:
        shared = one.aibridge._host.runtime.shared.redis
        assert shared is not None
        heard: list[bytes] = []
        shared.subscribe("outages", heard.append)
        await shared.publish("outages", message)
        await until(lambda: heard)
        assert list(one.provider.breakers) == []
        assert await one.chat() == 200
