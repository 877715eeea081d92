"""Two servers of two workers each, on one PostgreSQL and one Valkey, under a hundred streams while all goes wrong."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.cluster.valkey import ValkeyServer
from tests.recorder.postgres import PostgresServer
from tests.waiting import until

from .servers import Cluster
from .streams import Outcome, Streams, TellingUpstream

pytestmark = pytest.mark.anyio

STREAMS = 100
RELOADS = 20

CONFIG = """
[providers.openai]
base_url = "{url}/v1"
api_key = "sk-{number}"
max_retries = 0

[client_keys]
alice = "k-alice"
"""


class Drill:
    """What is done to the cluster, and when."""

    def __init__(self, cluster: Cluster, streams: Streams, upstream: TellingUpstream) -> None:
        self._cluster = cluster
        self._streams = streams
        self._upstream = upstream
        self._number = 0
        self.imperfect: list[object] = []
        """What reloads answered that did not reach all at once."""

    def configure(self) -> None:
        self._cluster.configure(CONFIG.format(url=self._upstream.url, number=self._number))

    async def reload(self, times: int) -> None:
        """A new provider key each time. From the answer on no request may use an older one."""
        for _ in range(times):
            self._number += 1
            self.configure()
            answer = await self._cluster.request("POST", "/reload")
            assert answer.status == 200, answer
            workers = json.loads(answer.body)["workers"]
            assert workers["failed"] == []
            if workers["silent"]:
                self.imperfect.append(workers)
            else:
                self._streams.generation = self._number
            await asyncio.sleep(0.2)

    async def kill_a_worker(self) -> float:
        """Without a word; returns when it happened."""
        before = await self._cluster.complete()
        os.kill(before[0]["pid"], signal.SIGKILL)
        return time.monotonic()


def cut(outcomes: list[Outcome]) -> list[Outcome]:
    return [one for one in outcomes if one.status == 200 and not one.whole]


async def test_a_cluster_through_reloads_and_outages(
    own_postgres: PostgresServer, own_valkey: ValkeyServer, tmp_path: Path
) -> None:
    """No stream is cut but the dead worker's, no old provider is used, and the records are what happened."""
    url = await own_postgres.empty_database_async()
    async with TellingUpstream() as upstream:
        cluster = Cluster(tmp_path, servers=2, RECORDER__URL=url, REDIS_URL=own_valkey.url, LIMITS__REQUESTS="1000000")
        streams = Streams(cluster, "k-alice")
        drill = Drill(cluster, streams, upstream)
        drill.configure()
        async with cluster:
            load = asyncio.create_task(streams.run(STREAMS))
            await until(lambda: len(upstream.keys) >= STREAMS)

            await drill.reload(6)

            killed = await drill.kill_a_worker()
            await drill.reload(4)
            await cluster.complete()

            own_valkey.stop()
            stopped = time.monotonic()
            await drill.reload(5)
            await asyncio.sleep(max(0.0, stopped + 10 - time.monotonic()))
            own_valkey.start()

            frozen = time.monotonic()
            own_postgres.freeze()
            await asyncio.sleep(5)
            own_postgres.thaw()
            thawed = time.monotonic()

            await drill.reload(5)
            await asyncio.sleep(1)
            streams.stopping = True
            await load

            records = await cluster.records()
            (usage,) = (await cluster.ask("/usage"))["items"]
            workers = await cluster.complete()

    # Workers and reloads
    assert len(workers) == 4
    assert len(drill.imperfect) <= 2, drill.imperfect  # the worker that is replaced may take long to start
    stale = [
        (one.name, one.generation, used)
        for one in streams.outcomes
        for used in upstream.keys.get(one.name, ())
        if used < one.generation
    ]
    assert stale == []
    assert streams.generation == RELOADS

    # Streams
    outcomes = streams.outcomes
    assert sum(one.whole for one in outcomes) > 4 * STREAMS
    of_the_dead = cut(outcomes)
    assert 0 < len(of_the_dead) < STREAMS
    for one in of_the_dead:
        assert one.begun <= killed <= one.ended + 0.1 <= killed + 3, one
    for one in outcomes:
        if one.status == 0:  # it was on its way to the worker that died
            assert one.begun - 1 <= killed <= one.ended + 0.1, one
        elif one.status != 200:  # it could not be recorded
            assert one.status == 503, one
            assert frozen - 1 <= one.ended <= thawed + 3, one

    # Records
    names = Counter(record["model"] for record in records)
    assert not [name for name, count in names.items() if count > 1]
    assert not [name for name, calls in upstream.keys.items() if len(calls) > 1]
    assert set(upstream.keys) <= set(names)
    assert set(names) <= {one.name for one in outcomes}
    status = {record["model"]: record["status"] for record in records}
    assert {status[one.name] for one in outcomes if one.whole} == {"completed"}
    assert {status[one.name] for one in of_the_dead} == {"interrupted"}
    assert usage["calls"] == len(records)
