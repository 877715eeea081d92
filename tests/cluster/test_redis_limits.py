"""Limits that several workers share, counted in a real Valkey server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from fastapi_aibridge import GatewayError, LimitSettings, Principal
from fastapi_aibridge.cluster import redis as cluster_redis
from fastapi_aibridge.cluster import redis_limits
from fastapi_aibridge.cluster.rate_limits import RateLimits, Ticket
from fastapi_aibridge.cluster.redis import SharedRedis
from fastapi_aibridge.errors import RedisUnavailable

from ..waiting import until
from .test_process_limits import OpenAI
from .valkey import ValkeyServer

pytestmark = pytest.mark.anyio

Workers = Callable[..., Any]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_redis, "PROBE_EVERY", 0.05)


@pytest.fixture
async def start(own_valkey: ValkeyServer) -> AsyncIterator[Workers]:
    """A function that starts the limits of a worker with its own connection."""
    async with AsyncExitStack() as stack:

        async def worker(alone: Callable[[], None] = lambda: None, **values: Any) -> RateLimits:
            shared = await stack.enter_async_context(SharedRedis(own_valkey.url))
            one = RateLimits(LimitSettings(**values), shared, alone=alone)
            stack.push_async_callback(one.aclose)
            return one

        yield worker


async def begin(one: RateLimits, initiator: str = "alice", *, size: int = 0, **who: Any) -> Ticket:
    ticket = one.begin(Principal(initiator, **who), OpenAI(), "gpt-5", size)
    assert ticket is not None
    try:
        await ticket.admitted()
    except BaseException:
        ticket.release()
        raise
    return ticket


async def passes(one: RateLimits, **request: Any) -> bool:
    try:
        await begin(one, **request)
    except GatewayError:
        return False
    return True


async def sent(one: RateLimits) -> None:
    """Wait until Redis has all counts and releases."""
    shared = one._shared
    assert shared is not None
    for _ in range(2):  # counts that came too late for a batch are sent after its response
        await until(lambda: shared._sender is None and not shared._waiting)
        await asyncio.sleep(0)


async def redis_of(one: RateLimits, *command: object) -> Any:
    assert one._redis is not None
    return await one._redis.call(lambda client: client.execute_command(*command))  # type: ignore[no-untyped-call]


async def test_window_is_one_for_all_workers(start: Workers) -> None:
    """Four workers with four hundred concurrent requests admit a hundred."""
    workers = [await start(requests=100) for _ in range(4)]
    results = await asyncio.gather(*(passes(one) for one in workers for _ in range(100)))
    assert results.count(True) == 100


async def test_refusal_says_when_to_come_again(start: Workers) -> None:
    """A caller that waits as the refusal says is admitted by any worker."""
    one, two = await start(requests=2, window=1), await start(requests=2, window=1)
    await begin(one)
    await begin(two)
    ticket = one.begin(Principal("alice"), OpenAI(), "gpt-5", 0)
    assert ticket is not None
    verdict = await ticket._answered()
    assert verdict.refused_by == 0
    assert 0 < verdict.wait < 1.1
    await asyncio.sleep(verdict.wait)
    await begin(two)


async def test_window_slides(start: Workers) -> None:
    """Half a window later half of the requests count, and two windows later none."""
    one = await start(requests=100, window=1)
    begun = time.monotonic()
    for _ in range(10):
        await begin(one)
    counted = time.monotonic()
    await asyncio.sleep(begun + 1.5 - time.monotonic())
    earliest = time.monotonic() - counted - 1
    left = int((await begin(one)).headers["x-ratelimit-remaining-requests"])
    latest = time.monotonic() - begun - 1
    assert 97 - 10 * (1 - earliest) <= left <= 99 - 10 * max(0, 1 - latest) + 1
    await asyncio.sleep(2)
    assert (await begin(one)).headers["x-ratelimit-remaining-requests"] == "99"


async def test_concurrent_requests_of_all_workers(start: Workers) -> None:
    """The limit of concurrent requests holds for all workers together; each end admits the next."""
    workers = [await start(max_concurrent_per_principal=10, max_wait=5) for _ in range(4)]
    running = most = 0

    async def request(one: RateLimits) -> None:
        nonlocal running, most
        ticket = await begin(one)
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1
        ticket.release()

    await asyncio.gather(*(request(one) for one in workers for _ in range(10)))
    assert most == 10


async def test_leases_are_renewed(start: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request may run for longer than a lease lasts, because its lease is renewed."""
    monkeypatch.setattr(redis_limits, "LEASE", 3)
    one, two = await start(max_concurrent_per_principal=1, max_wait=0), await start(max_concurrent_per_principal=1)
    ticket = await begin(one)
    await asyncio.sleep(3.5)
    assert not await passes(one)
    ticket.release()
    await begin(two)


async def test_leases_of_a_dead_worker_end(start: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead worker's leases expire, because nobody renews them."""
    monkeypatch.setattr(redis_limits, "LEASE", 2)
    one, two = [await start(max_concurrent_per_principal=1, max_wait=0) for _ in range(2)]
    await begin(one)
    assert not await passes(two)
    await one.aclose()  # leases are no longer renewed
    await until(lambda: passes(two))


async def test_request_that_was_given_up_frees_its_place(start: Workers) -> None:
    """A request that is cancelled before Redis has responded releases its place."""
    one = await start(max_concurrent_per_principal=1, max_wait=0, tokens=100)
    ticket = one.begin(Principal("alice"), OpenAI(), "gpt-5", 40)
    assert ticket is not None
    waiting = asyncio.create_task(ticket.admitted())
    await asyncio.sleep(0)
    waiting.cancel()
    ticket.release()
    await sent(one)
    assert (await begin(one)).headers["x-ratelimit-remaining-tokens"] == "100"


async def test_tokens_of_all_workers(start: Workers) -> None:
    one, two = await start(tokens=1000), await start(tokens=1000)
    ticket = await begin(one, size=400)
    assert (await begin(two)).headers["x-ratelimit-remaining-tokens"] == "900"
    ticket.count(700)
    ticket.count(299)
    ticket.release()
    await sent(one)
    last = await begin(two)
    assert last.headers["x-ratelimit-remaining-tokens"] == "1"
    last.count(2)
    await sent(two)
    assert not await passes(one)


async def test_one_round_trip(start: Workers) -> None:
    """A request needs one round trip whatever the rules, and concurrent requests share it."""
    one = await start(
        requests=1000,
        tokens=10**6,
        max_concurrent_per_principal=100,
        rules=[
            {"scope": "group", "id": "*", "requests": 1000, "concurrent": 90},
            {"scope": "model", "id": "*", "tokens": 10**9},
        ],
    )
    before = await calls(one)
    (await begin(one, groups=("a", "b"))).release()
    await sent(one)
    assert await calls(one) - before <= 3  # loading the script at its first use, the check, the release
    before = await calls(one)
    tickets = await asyncio.gather(*(begin(one, groups=("a",)) for _ in range(50)))
    assert await calls(one) - before == 1
    for ticket in tickets:
        ticket.release()


async def test_what_nobody_waits_for_goes_with_the_next_question(start: Workers) -> None:
    """Counts and releases are sent along with the next check, so that consecutive requests cost one round trip each."""
    one = await start(requests=1000, tokens=10**6, max_concurrent_per_principal=1, max_wait=0)
    (await begin(one)).release()
    await sent(one)
    before = await calls(one)
    for _ in range(5):
        ticket = await begin(one)
        ticket.count(10)
        ticket.release()
    await sent(one)
    assert await calls(one) - before == 6


async def calls(one: RateLimits) -> int:
    stats = await redis_of(one, "INFO", "commandstats")
    return sum(stats[name]["calls"] for name in ("cmdstat_evalsha", "cmdstat_eval") if name in stats)


async def test_outage_falls_back_to_the_process(start: Workers, own_valkey: ValkeyServer) -> None:
    """During an outage each worker counts by itself; afterwards Redis counts again, including running requests."""
    alone: list[None] = []
    one = await start(lambda: alone.append(None), requests=3, max_concurrent_per_principal=2, max_wait=0)
    running = await begin(one)
    own_valkey.stop()
    second = await begin(one)
    assert len(alone) == 1
    assert not await passes(one)  # more concurrent requests than allowed
    second.release()
    (await begin(one)).release()
    await asyncio.sleep(0.01)
    own_valkey.start()
    await until(lambda: one._shared is not None and one._shared.available)
    await begin(one)
    assert not await passes(one)  # the first request still runs, and Redis counts again
    running.release()
    await begin(one)
    decided = len(alone)
    assert not await passes(one)
    assert len(alone) == decided


async def test_outage_may_refuse(start: Workers, own_valkey: ValkeyServer) -> None:
    one = await start(requests=100, on_error="refuse")
    await begin(one)
    own_valkey.stop()
    for _ in range(2):
        with pytest.raises(GatewayError) as caught:
            await begin(one)
        assert (caught.value.status, caught.value.code) == (503, "limits_unavailable")
    own_valkey.start()
    await until(lambda: one._shared is not None and one._shared.available)
    await begin(one)


async def test_frozen_redis_costs_one_timeout(start: Workers, own_valkey: ValkeyServer) -> None:
    """Requests that were sent to a hanging Redis wait for one timeout together, and later ones do not wait."""
    one = await start(requests=100)
    await begin(one)
    own_valkey.freeze()
    try:
        async with asyncio.timeout(9 * cluster_redis.TIMEOUT):  # in sequence they would take longer
            await asyncio.gather(*(begin(one) for _ in range(10)))
        async with asyncio.timeout(0.8 * cluster_redis.TIMEOUT):
            await begin(one)
    finally:
        own_valkey.thaw()


async def test_keys_end_and_tell_no_names(start: Workers) -> None:
    """Each key expires and contains no name of an initiator, group or model."""
    one = await start(
        requests=9, tokens=9, max_concurrent_per_principal=9, rules=[{"scope": "group", "id": "staff", "requests": 9}]
    )
    ticket = await begin(one, "alice@example.com", groups=("staff",))
    keys = await redis_of(one, "KEYS", "*")
    assert len(keys) == 4
    for key in keys:
        assert key.startswith(b"aibridge:limits:")
        assert b"alice" not in key
        assert b"staff" not in key
        assert 0 < await redis_of(one, "PTTL", key) <= 120_000
    ticket.count(3)
    ticket.release()


async def test_erase(start: Workers) -> None:
    """The counts of one initiator are erased from Redis, and those of others stay."""
    one = await start(requests=1)
    await begin(one)
    await begin(one, "bob")
    await one.erase("alice")
    await begin(one)
    assert not await passes(one, initiator="bob")


async def test_restart_of_redis_forgets_no_lease(start: Workers, own_valkey: ValkeyServer) -> None:
    """After a restart of Redis, workers report their running requests again."""
    one, two = [await start(max_concurrent_per_principal=1, max_wait=0) for _ in range(2)]
    await begin(one)
    own_valkey.stop()
    for worker in (one, two):
        with pytest.raises(RedisUnavailable):
            await redis_of(worker, "PING")
    own_valkey.start()
    await until(lambda: all(worker._shared.available for worker in (one, two)))
    await sent(one)
    assert not await passes(two)
