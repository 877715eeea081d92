"""Limits that four gateway processes share, on one PostgreSQL and one Valkey."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis import Redis

from fastapi_aibridge.cluster.redis_limits import LEASE

from ...cluster.valkey import ValkeyServer
from ...recorder.postgres import PostgresServer
from ...upstream.raw import Answer, RawUpstream
from ...waiting import until
from ..gateway.client import Answer as Received
from ..records.process import CHAT, GatewayProcess, Spawner

pytestmark = pytest.mark.anyio

USAGE = b'{"prompt_tokens": 8, "completion_tokens": 10, "total_tokens": 18}'
OK = Answer(200, b'{"id": "c1", "object": "chat.completion", "choices": [], "usage": %s}' % USAGE)
QUESTION = b'{"model": "gpt-5", "messages": []}'


@asynccontextmanager
async def gateways(
    upstream: RawUpstream, postgres: PostgresServer, valkey: ValkeyServer, log: Path, **settings: str
) -> AsyncIterator[list[GatewayProcess]]:
    """Start four gateway processes on the same databases."""
    url = await postgres.empty_database_async()
    with Spawner(log) as spawner:
        found = [GatewayProcess(spawner, upstream.base_url, url, REDIS_URL=valkey.url, **settings) for _ in range(4)]
        for one in found:
            await one.start()
        yield found


async def ask(gateway: GatewayProcess) -> Received:
    return await gateway.request("POST", CHAT, QUESTION)


def counted(valkey: ValkeyServer) -> list[int]:
    """Return the count of each window, which is updated after the response."""
    with Redis.from_url(valkey.url, decode_responses=True) as client:
        found = [client.hget(key, "c") for key in client.scan_iter(_type="hash")]
    return [int(str(one)) for one in found if one is not None]


async def test_a_hundred_of_four_hundred_pass(postgres: PostgresServer, valkey: ValkeyServer, tmp_path: Path) -> None:
    """A limit of a hundred requests in a window holds over all processes, however many are called at once."""
    async with (
        RawUpstream(OK) as upstream,
        gateways(upstream, postgres, valkey, tmp_path / "log", LIMITS__REQUESTS="100") as found,
    ):
        turns = asyncio.Semaphore(64)

        async def one(gateway: GatewayProcess) -> Received:
            async with turns:
                return await ask(gateway)

        answers = await asyncio.gather(*(one(gateway) for _ in range(100) for gateway in found))
        passed = [answer for answer in answers if answer.status == 200]
        assert 100 <= len(passed) <= 102
        assert len(upstream.requests) == len(passed)
        left = sorted(int(dict(answer.headers)["x-ratelimit-remaining-requests"]) for answer in passed)
        assert left == list(range(100))
        refused = [answer for answer in answers if answer.status != 200]
        assert {answer.status for answer in refused} == {429}
        assert all(int(dict(answer.headers)["retry-after"]) >= 1 for answer in refused)
        # Most refusals leave no record.
        records = await found[0].records()
        failed = [one for one in records.values() if one["status"] == "failed"]
        assert len(failed) < 150
        assert all("your limit is 100 requests in 60 s" in one["error"] for one in failed)


async def test_ten_at_once_also_after_a_worker_died(
    postgres: PostgresServer, valkey: ValkeyServer, tmp_path: Path
) -> None:
    """Ten concurrent requests run, never more; those of a killed process expire, and others take their place."""
    silence = Answer(silent=True)
    settings = {"LIMITS__MAX_CONCURRENT_PER_PRINCIPAL": "10", "LIMITS__MAX_WAIT": "0.3"}
    async with (
        RawUpstream(silence) as upstream,
        gateways(upstream, postgres, valkey, tmp_path / "log", **settings) as found,
    ):
        doomed, *others = found
        tasks = [asyncio.create_task(ask(doomed)) for _ in range(6)]
        await until(lambda: len(upstream.requests) == 6)
        tasks += [asyncio.create_task(ask(gateway)) for _ in range(6) for gateway in others]
        await until(lambda: sum(task.done() for task in tasks) == 14)
        assert len(upstream.requests) == 10
        assert {task.result().status for task in tasks if task.done()} == {429}
        killed = time.monotonic()
        await doomed.kill()
        assert (await ask(others[0])).status == 429
        # A request is admitted when the dead process's leases expire.
        while True:
            late = asyncio.create_task(ask(others[0]))
            await asyncio.wait((late,), timeout=0.6)
            if not late.done():
                break
            assert late.result().status == 429
            await asyncio.sleep(0.2)
        assert LEASE - 6 < time.monotonic() - killed < LEASE + 3
        tasks += [late, *(asyncio.create_task(ask(gateway)) for _ in range(6) for gateway in others)]
        await until(lambda: len(upstream.requests) >= 16)
        await asyncio.sleep(0.6)
        assert len(upstream.requests) == 16  # four from before, and six in the place of the dead process's
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_tokens_of_four_processes(postgres: PostgresServer, valkey: ValkeyServer, tmp_path: Path) -> None:
    """Tokens that one process has used count in the others."""
    async with (
        RawUpstream(OK) as upstream,
        gateways(upstream, postgres, valkey, tmp_path / "log", LIMITS__TOKENS="50") as found,
    ):
        for number, gateway in enumerate(found[:3], 1):
            assert (await ask(gateway)).status == 200
            await until(lambda wanted=18 * number: counted(valkey) == [wanted])  # type: ignore[misc]
        assert (await ask(found[3])).status == 429


async def test_redis_stops_and_comes_back(postgres: PostgresServer, own_valkey: ValkeyServer, tmp_path: Path) -> None:
    """No request fails while Redis is down, and afterwards the limits hold again without a restart."""
    async with (
        RawUpstream(OK) as upstream,
        gateways(upstream, postgres, own_valkey, tmp_path / "log", LIMITS__REQUESTS="5") as found,
    ):
        assert [(await ask(found[number % 4])).status for number in range(6)] == [200] * 5 + [429]
        own_valkey.stop()
        assert (await ask(found[0])).status == 200
        own_valkey.start()

        async def is_back() -> bool:
            answers = [await one.request("GET", "/ai/readyz?verbose") for one in found]
            return all(b'"redis":"ok"' in answer.body for answer in answers)

        await until(is_back)
        assert [(await ask(found[number % 4])).status for number in range(6)] == [200] * 5 + [429]
