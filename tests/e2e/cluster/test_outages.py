"""Two servers of two workers, one PostgreSQL and one Valkey, with a hundred streams during reloads and outages."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from tests.cluster.valkey import ValkeyServer
from tests.recorder.postgres import PostgresServer
from tests.waiting import until

from ..gateway.client import Answer
from .servers import Cluster
from .streams import Outcome, Streams, TellingUpstream

pytestmark = pytest.mark.anyio

STREAMS = 100
RELOADS = 20
PAUSE = 0.1
"""Seconds between two reloads."""
REVOKED = 10
"""Client keys that are made, and revoked while two streams run with each, beside the hundred."""

UNWRITTEN = 0.5
"""Seconds before its death for which a worker may not have written the ends of its streams."""

CONFIG = """
[providers.openai]
base_url = "{url}/v1"
api_key = "sk-{number}"
max_retries = 0

[client_keys]
alice = "k-alice"
"""


class Drill:
    """The operations on the cluster, and their outcomes."""

    def __init__(self, cluster: Cluster, upstream: TellingUpstream) -> None:
        self._cluster = cluster
        self._upstream = upstream
        self.number = 0
        """The number of the provider's key in the settings file."""
        self.managed = 0
        """The number of the provider's key in the database."""
        self.imperfect: list[object] = []
        """The responses of reloads and changes that did not reach all workers at once."""

    def configure(self) -> None:
        self._cluster.configure(CONFIG.format(url=self._upstream.url, number=self.number))

    async def reload(self, times: int) -> None:
        """Reload with a new provider key each time; after the response no request may use an older one."""
        for _ in range(times):
            self.number += 1
            self.configure()
            answer = await self._cluster.request("POST", "/reload")
            self._note(answer, "openai", self.number)
            await asyncio.sleep(PAUSE)

    async def change_provider(self, times: int) -> None:
        """Change the managed provider's key each time; after the response no request may use an older one."""
        for _ in range(times):
            self.managed += 1
            body = {
                "type": "openai",
                "base_url": f"{self._upstream.url}/v1",
                "api_key": f"sk-{self.managed}",
                "max_retries": 0,
            }
            answer = await self._cluster.request("PUT", "/providers/managed", json.dumps(body).encode())
            self._note(answer, "managed", self.managed)
            await asyncio.sleep(PAUSE)

    def _note(self, answer: Answer, provider: str, number: int) -> None:
        assert answer.status == 200, answer
        workers = json.loads(answer.body)["workers"]
        assert workers["failed"] == []
        if workers["silent"]:
            self.imperfect.append(workers)
        else:
            self._cluster.generation[provider] = number

    async def make_key(self, initiator: str) -> tuple[str, str]:
        """Make a client key; return its id and the key."""
        answer = await self._cluster.request("POST", "/client-keys", json.dumps({"initiator_id": initiator}).encode())
        assert answer.status == 201, answer
        made = json.loads(answer.body)
        return made["id"], made["key"]

    async def revoke(self, key_id: str) -> float:
        """Revoke a client key; return the monotonic time of the response."""
        answer = await self._cluster.request("DELETE", f"/client-keys/{key_id}")
        assert answer.status == 200, answer
        return time.monotonic()

    async def kill_a_worker(self) -> float:
        """Kill a worker with SIGKILL; return the monotonic time."""
        before = await self._cluster.complete()
        os.kill(before[0]["pid"], signal.SIGKILL)
        return time.monotonic()


def cut(outcomes: list[Outcome]) -> list[Outcome]:
    return [one for one in outcomes if one.status == 200 and not one.whole]


async def test_a_cluster_through_reloads_and_outages(
    own_postgres: PostgresServer, own_valkey: ValkeyServer, tmp_path: Path
) -> None:
    """Only streams of the dead worker and of revoked keys are cut, no old key is used, and the records are right."""
    url = await own_postgres.empty_database_async()
    async with TellingUpstream() as upstream:
        cluster = Cluster(
            tmp_path,
            servers=2,
            RECORDER__URL=url,
            REDIS_URL=own_valkey.url,
            LIMITS__REQUESTS="1000000",
            MANAGED="true",
            SECRET_KEYS=json.dumps([Fernet.generate_key().decode()]),
        )
        streams = Streams(cluster, "alice", "k-alice")
        of_managed = Streams(cluster, "managed", "k-alice", provider="managed")
        drill = Drill(cluster, upstream)
        drill.configure()
        async with cluster:
            await drill.change_provider(1)
            load = asyncio.gather(streams.run(STREAMS), of_managed.run(10))
            keys = [await drill.make_key(f"bob-{number}") for number in range(REVOKED)]
            of_keys = [Streams(cluster, f"bob-{number}", key) for number, (_, key) in enumerate(keys)]
            load_of_keys = [asyncio.create_task(one.run(2)) for one in of_keys]
            await until(lambda: len(upstream.keys) >= STREAMS + 2 * REVOKED)

            await drill.reload(4)
            await drill.change_provider(4)

            revoked = await asyncio.gather(*(drill.revoke(key_id) for key_id, _ in keys))
            await drill.reload(4)
            await asyncio.sleep(max(0.0, revoked[-1] + 3 - time.monotonic()))
            for of_one in of_keys:
                of_one.stopping = True
            await asyncio.gather(*load_of_keys)

            own_valkey.stop()
            stopped = time.monotonic()
            killed = await drill.kill_a_worker()
            await drill.reload(8)  # while another worker takes its place
            await cluster.complete()
            await asyncio.sleep(max(0.0, stopped + 10 - time.monotonic()))
            own_valkey.start()

            frozen = time.monotonic()
            own_postgres.freeze()
            await asyncio.sleep(5)
            own_postgres.thaw()
            thawed = time.monotonic()

            await drill.reload(4)
            await drill.change_provider(2)
            streams.stopping = of_managed.stopping = True
            await load

            records = await cluster.records()
            (usage,) = (await cluster.ask("/usage"))["items"]
            workers = await cluster.complete()

    # Workers and reloads
    assert len(workers) == 4
    assert len(drill.imperfect) <= 2, drill.imperfect  # the replacement of a worker may take long to start
    stale = [
        (one.name, one.generation, used)
        for of_one in (streams, of_managed, *of_keys)
        for one in of_one.outcomes
        for used in upstream.keys.get(one.name, ())
        if used < one.generation
    ]
    assert stale == []
    assert (drill.number, drill.managed) == (RELOADS, 7)

    # Streams
    steady = [*streams.outcomes, *of_managed.outcomes]
    assert sum(one.whole for one in steady) > 4 * STREAMS
    of_the_dead = cut(steady)
    assert 0 < len(of_the_dead) < STREAMS
    for one in of_the_dead:
        assert one.begun <= killed <= one.ended + 0.1 <= killed + 3, one
    for one in steady:
        if one.status == 0:  # the request was on its way to the worker that died
            assert one.begun - 1 <= killed <= one.ended + 0.1, one
        elif one.status != 200:  # the request could not be recorded
            assert one.status == 503, one
            assert frozen - 1 <= one.ended <= thawed + 3, one

    # Keys
    of_revoked: list[Outcome] = []
    for of_one, moment in zip(of_keys, revoked, strict=True):
        of_revoked += cut(of_one.outcomes)
        for one in of_one.outcomes:
            if one.status == 200 and one.whole:
                assert one.ended <= moment + 2, one
            elif one.status == 200:
                assert one.begun <= moment + 2, one
                assert one.ended <= moment + 3, one
                assert one.told, one
            else:
                assert one.status == 401, one
    assert len(of_revoked) >= REVOKED

    # Records
    outcomes = [*steady, *(one for of_one in of_keys for one in of_one.outcomes)]
    names = Counter(record["model"] for record in records)
    assert not [name for name, count in names.items() if count > 1]
    assert not [name for name, calls in upstream.keys.items() if len(calls) > 1]
    assert set(upstream.keys) <= set(names)
    assert set(names) <= {one.name for one in outcomes}
    status = {record["model"]: record["status"] for record in records}
    # Ends are written a moment after the last byte: the dead worker may have lost the newest of its own.
    cut_short = [one for one in outcomes if one.whole and status[one.name] == "interrupted"]
    assert all(killed - UNWRITTEN <= one.ended <= killed + 0.1 for one in cut_short), cut_short
    assert {status[one.name] for one in outcomes if one.whole and one not in cut_short} == {"completed"}
    assert {status[one.name] for one in of_the_dead} == {"interrupted"}
    assert {status[one.name] for one in of_revoked} == {"failed"}
    assert usage["calls"] == len(records)
