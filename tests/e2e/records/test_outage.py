"""A database server that is stopped for ten seconds under load."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

import pytest

from tests.e2e.gateway import client
from tests.e2e.load.upstream import PacedUpstream
from tests.recorder.postgres import PostgresServer
from tests.waiting import until

from .process import ADMIN, CHAT, LIMIT, GatewayProcess, Spawner

pytestmark = pytest.mark.anyio

SECONDS = 10
CLIENTS = 40


class Load:
    def __init__(self, port: int) -> None:
        self._port = port
        self.completed: list[str] = []
        self.refused = 0
        self.stop = asyncio.Event()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in range(CLIENTS):
                tasks.create_task(self._ask_on("quick" if number % 4 else "3s"))

    async def _ask_on(self, model: str) -> None:
        while not self.stop.is_set():
            body = json.dumps({"model": model, "stream": True, "messages": []}).encode()
            answer = await client.request(self._port, "POST", CHAT, body)
            interception_id = answer.header("x-aibridge-interception-id")
            if answer.status == 200:
                assert answer.whole
                assert answer.body.endswith(b"data: [DONE]\n\n")
                assert interception_id is not None
                self.completed.append(interception_id)
            else:
                assert answer.status == 503, answer
                assert int(answer.header("retry-after") or "0") > 0
                assert json.loads(answer.body)["error"]["code"] == "recorder_unavailable"
                assert interception_id is None
                self.refused += 1
                await asyncio.sleep(0.05)

    async def go_on(self, completed: int) -> None:
        """Wait until so many more requests have completed."""
        wanted = len(self.completed) + completed
        await until(lambda: len(self.completed) >= wanted, LIMIT)


async def test_ten_seconds_without_the_database_under_load(own_postgres: PostgresServer, spawner: Spawner) -> None:
    """Running streams go on, new requests get 503 without a call upstream, and each completed one has its record."""
    url = await own_postgres.empty_database_async()
    async with PacedUpstream() as upstream:
        gateway = GatewayProcess(spawner, f"{upstream.url}/word/v1", url)
        await gateway.start()
        load = Load(gateway.port)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(load.run())
            await load.go_on(200)
            await asyncio.to_thread(own_postgres.stop)
            await asyncio.sleep(SECONDS - 1)
            calls = upstream.calls
            assert (await gateway.request("GET", "/ai/readyz")).status == 503
            refused = load.refused
            await asyncio.sleep(1)
            assert load.refused > refused
            assert upstream.calls == calls
            for path in ("/interceptions", "/interceptions/export?format=csv", "/usage"):
                reading = await gateway.request("GET", f"/ai/admin{path}", key=ADMIN)
                assert (reading.status, reading.header("retry-after")) == (503, "5")
            await asyncio.to_thread(own_postgres.start)
            await load.go_on(200)
            load.stop.set()
        assert (await gateway.request("GET", "/ai/readyz")).status == 200
        # Waiting records are written at the latest when the gateway stops.
        await gateway.stop()
        await gateway.start()
        records = await gateway.records()
        await gateway.stop()
    assert set(load.completed) <= set(records)
    assert Counter(records[one]["status"] for one in load.completed) == {"completed": len(load.completed)}
    assert {record["status"] for record in records.values()} <= {"completed", "failed"}
    assert "Traceback" not in spawner.said
