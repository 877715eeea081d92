"""`kill -9` in the middle of a hundred streams of a real server process, which restarts on the same database."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.e2e.gateway import client
from tests.e2e.load.upstream import PacedUpstream
from tests.waiting import until

from .process import CHAT, LIMIT, GatewayProcess, Spawner

pytestmark = pytest.mark.anyio

STREAMS = 100
ENDED = {"completed", "failed", "cancelled", "interrupted"}


class Clients:
    """A hundred concurrent clients that run until the gateway dies, and keep each id that they see."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.seen: set[str] = set()
        self.whole: set[str] = set()
        """The ids of the streams that came to their end."""
        self.sent = 0

    async def run(self) -> None:
        """Run 60 clients with long streams, 30 with short ones and 10 that leave after the first bytes."""
        kinds = ["3s"] * 60 + ["quick"] * 30 + ["left"] * 10
        await asyncio.gather(*map(self._stream_on, kinds))

    async def _stream_on(self, kind: str) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                await self._stream(kind)

    async def _stream(self, kind: str) -> None:
        body = json.dumps({"model": kind, "stream": True, "messages": [{"role": "user", "content": "hi"}]}).encode()
        async with client.connected(self._port) as connection:
            self.sent += 1
            await connection.send("POST", CHAT, body)
            status, headers = await connection.head()
            assert status == 200
            interception_id = dict(headers)["x-aibridge-interception-id"]
            self.seen.add(interception_id)
            await connection.piece()
            if kind == "left":
                await asyncio.sleep(random.uniform(0, 0.05))
                return
            while await connection.piece():
                pass
            self.whole.add(interception_id)


async def settled(gateway: GatewayProcess, since: datetime) -> dict[str, dict[str, Any]]:
    """Return the records since then, once none of them runs."""
    async with asyncio.timeout(LIMIT):
        while True:
            records = await gateway.records(f"&started_after={since:%Y-%m-%dT%H:%M:%S.%fZ}")
            if all(record["status"] != "running" for record in records.values()):
                return records
            await asyncio.sleep(0.5)  # a database server may still process the dead process's last statement


async def test_kill_9_in_the_middle_of_a_hundred_streams(url: str, spawner: Spawner) -> None:
    """After each kill every interception that a client or the upstream saw is recorded once, and has ended."""
    rounds = 10 if url.startswith("sqlite") else 4
    begun = datetime.now(UTC)
    seen: set[str] = set()
    sent = completed = 0
    async with PacedUpstream() as upstream:
        gateway = GatewayProcess(spawner, f"{upstream.url}/word/v1", url)
        await gateway.start()
        for _ in range(rounds):
            since = datetime.now(UTC)
            calls = upstream.calls
            clients = Clients(gateway.port)
            load = asyncio.create_task(clients.run())
            await until(lambda of=clients: len(of.seen) >= STREAMS and len(of.whole) >= STREAMS / 5, LIMIT)  # type: ignore[misc]
            await asyncio.sleep(random.uniform(0, 0.2))
            await gateway.kill()
            await load
            await gateway.start()
            records = await settled(gateway, since)
            assert clients.seen <= set(records)
            assert upstream.calls - calls <= len(records) <= clients.sent
            statuses = Counter(record["status"] for record in records.values())
            assert set(statuses) <= ENDED
            assert statuses["interrupted"] >= STREAMS / 2, "the gateway was not in the middle of its streams"
            of_whole = Counter(records[one]["status"] for one in clients.whole)
            assert set(of_whole) <= {"completed", "interrupted"}
            completed += of_whole["completed"]
            seen |= clients.seen
            sent += clients.sent
        records = await settled(gateway, begun)
        assert seen <= set(records)
        assert upstream.calls <= len(records) <= sent
        (usage,) = (await gateway.ask("/usage"))["items"]
        assert usage["calls"] == len(records)
        await gateway.stop()
    assert completed
