"""The connection to Redis: its health, its recovery, its messages."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

import httpx
import pytest
from fastapi import FastAPI
from redis.asyncio import Redis

from fastapi_aibridge import AIBridge, Settings
from fastapi_aibridge.cluster import redis as cluster_redis
from fastapi_aibridge.cluster.redis import SharedRedis
from fastapi_aibridge.errors import RedisUnavailable, SettingsError

from ..waiting import until
from .valkey import ValkeyServer

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_redis, "PROBE_EVERY", 0.05)


async def ping(shared: SharedRedis) -> bool:
    async def work(client: object) -> bool:
        return bool(await client.ping())  # type: ignore[attr-defined]

    return await shared.call(work)


async def test_outage_is_told_once_and_ends_by_itself(
    own_valkey: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    """During an outage calls fail at once and the log says so once; on recovery the callbacks run."""
    returns: list[bool] = []
    with caplog.at_level(logging.INFO, "fastapi_aibridge.cluster.redis"):
        async with SharedRedis(own_valkey.url) as shared:
            assert await ping(shared)
            shared.when_back(lambda: returns.append(shared.available))
            own_valkey.stop()
            for _ in range(3):
                with pytest.raises(RedisUnavailable):
                    await ping(shared)
            assert (shared.available, shared.failures) == (False, 1)
            own_valkey.start()
            await until(lambda: shared.available)
            assert await ping(shared)
    assert returns == [True, True]
    assert [record.levelname for record in caplog.records] == ["INFO", "ERROR", "WARNING"]


async def test_server_that_does_not_answer_counts_as_away(own_valkey: ValkeyServer) -> None:
    """The first call waits for the timeout, and later calls fail at once."""
    async with SharedRedis(own_valkey.url) as shared:
        own_valkey.freeze()
        try:
            async with asyncio.timeout(10 * cluster_redis.TIMEOUT):
                with pytest.raises(RedisUnavailable):
                    await ping(shared)
            async with asyncio.timeout(0.8 * cluster_redis.TIMEOUT):
                with pytest.raises(RedisUnavailable):
                    await ping(shared)
        finally:
            own_valkey.thaw()
        await until(lambda: shared.available)


@pytest.mark.parametrize(
    ("cause", "cure"),
    [
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
    ],
)
async def test_server_that_takes_no_writes_counts_as_away(
    own_valkey: ValkeyServer, caplog: pytest.LogCaptureFixture, cause: str, cure: str
) -> None:
    """A full server or a replica counts as away, although it answers a ping; the log says so once."""

    def run(command: str) -> Callable[[Redis], Awaitable[object]]:
        return lambda client: client.execute_command(*command.split())  # type: ignore[no-untyped-call]

    async with SharedRedis(own_valkey.url) as shared, SharedRedis(own_valkey.url) as operator:
        await operator.call(run(cause))
        for _ in range(3):
            with pytest.raises(RedisUnavailable):
                await shared.call(run("SET a b"))
            await asyncio.sleep(2 * cluster_redis.PROBE_EVERY)
        assert (shared.available, shared.failures) == (False, 1)
        await operator.call(run(cure))
        await until(lambda: shared.available)
        await shared.call(run("SET a b"))
    assert caplog.text.count("Redis is away") == 1


async def test_start_without_redis(own_valkey: ValkeyServer) -> None:
    """A Redis that is away at the start is used once it responds."""
    own_valkey.stop()
    async with SharedRedis(own_valkey.url) as shared:
        assert not shared.available
        own_valkey.start()
        await until(lambda: shared.available)


async def test_connection_that_broke_while_idle_is_no_outage(valkey: ValkeyServer) -> None:
    """An idle connection that a proxy or a server has closed is not an outage."""
    async with SharedRedis(valkey.url) as shared:
        await ping(shared)

        async def kill(client: object) -> None:
            await client.client_kill_filter(_type="normal", skipme=True)  # type: ignore[attr-defined]

        async with SharedRedis(valkey.url) as other:
            await other.call(kill)
        assert await ping(shared)
        assert shared.failures == 0


async def test_refused_command_is_no_outage(valkey: ValkeyServer, caplog: pytest.LogCaptureFixture) -> None:
    """A refused command fails its caller only; the log names it once."""

    async def work(client: object) -> None:
        await client.execute_command("NO-SUCH-COMMAND")  # type: ignore[attr-defined]

    async with SharedRedis(valkey.url) as shared:
        for _ in range(2):
            with pytest.raises(RedisUnavailable):
                await shared.call(work)
        assert shared.available
    assert caplog.text.count("refuses a command") == 1


class Ear:
    def __init__(self, name: str, heard: list[tuple[str, bytes]]) -> None:
        self._name = name
        self._heard = heard

    def __call__(self, data: bytes) -> None:
        self._heard.append((self._name, data))


async def test_messages_reach_all_workers(valkey: ValkeyServer) -> None:
    """Messages reach all workers, including the sender, but none with another prefix."""
    heard: list[tuple[str, bytes]] = []
    ready: list[str] = []
    async with (
        SharedRedis(valkey.url) as one,
        SharedRedis(valkey.url) as two,
        SharedRedis(valkey.url, prefix="other:") as other,
    ):
        for name, shared in {"one": one, "two": two, "other": other}.items():
            shared.subscribe("reload", Ear(name, heard), partial(ready.append, name))
        await until(lambda: len(ready) == 3)
        assert await one.publish("reload", b"7")
        await one.publish("something else", b"8")
        await until(lambda: len(heard) == 2)
    assert sorted(heard) == [("one", b"7"), ("two", b"7")]


async def test_messages_go_on_after_an_outage(own_valkey: ValkeyServer) -> None:
    """After an outage listeners are told that messages may have been lost, and get the next ones."""
    heard: list[bytes] = []
    ready: list[bool] = []
    async with SharedRedis(own_valkey.url) as shared:
        shared.subscribe("reload", heard.append, lambda: ready.append(True))
        await until(lambda: len(ready) == 1)
        own_valkey.stop()
        assert not await shared.publish("reload", b"lost")
        own_valkey.start()
        await until(lambda: len(ready) == 2 and shared.available)
        assert await shared.publish("reload", b"found")
        await until(lambda: heard == [b"found"])


async def test_silent_connection_for_messages_is_replaced(
    own_valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A silent connection for messages is replaced, because the server may hang."""
    monkeypatch.setattr(cluster_redis, "QUIET", 0.1)
    ready: list[bool] = []
    heard: list[bytes] = []
    async with SharedRedis(own_valkey.url) as shared:
        shared.subscribe("reload", heard.append, lambda: ready.append(True))
        await until(lambda: len(ready) == 1)
        own_valkey.freeze()
        await asyncio.sleep(0.4)
        own_valkey.thaw()
        await until(lambda: len(ready) == 2)
        await shared.publish("reload", b"1")
        await until(lambda: heard == [b"1"])


@pytest.mark.parametrize("url", ["localhost:6379", "http://localhost", "redis://host:secret-port/0"])
async def test_url_that_is_none(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error for an invalid URL names the variable and no part of the URL, which may hold a password."""
    monkeypatch.setenv("AIBRIDGE_REDIS_URL", url)
    with pytest.raises(SettingsError, match=r"AIBRIDGE_REDIS_URL.*redis://host:6379/0") as caught:
        async with AIBridge(Settings.load()).lifespan(FastAPI()):
            pass
    assert url not in str(caught.value)


async def test_health_and_metric(own_valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """`/readyz?verbose` and the metrics show Redis; without it the app is still ready."""
    monkeypatch.setenv("AIBRIDGE_REDIS_URL", own_valkey.url)
    monkeypatch.setenv("AIBRIDGE_RECORDER__ENABLED", "false")
    monkeypatch.setenv("AIBRIDGE_ADMIN_TOKEN", "admin")
    aibridge = AIBridge()
    app = FastAPI()
    app.include_router(aibridge.router)
    async with (
        aibridge.lifespan(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client,
    ):
        assert (await client.get("/readyz")).json() == {"status": "ready"}
        assert (await client.get("/readyz?verbose")).json()["components"]["redis"] == "ok"
        own_valkey.stop()
        shared = aibridge._host.runtime.shared.redis
        assert shared is not None
        with pytest.raises(RedisUnavailable):
            await ping(shared)
        answer = await client.get("/readyz?verbose")
        assert (answer.status_code, answer.json()["components"]["redis"]) == (200, "away")
        metrics = (await client.get("/admin/metrics", headers={"authorization": "Bearer admin"})).text
        assert "aibridge_redis_up 0.0" in metrics
        assert "aibridge_redis_outages_total 1.0" in metrics
