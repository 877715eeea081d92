"""Gateway processes that share Alice's budget, and a view of its counter."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from sqlalchemy import select

from fastapi_aibridge.recorder.database import Database
from fastapi_aibridge.recorder.schema import budget_counters
from tests.e2e.gateway.client import Answer, connected
from tests.e2e.records.process import CHAT, GatewayProcess, Spawner

CENT = 10_000
"""One cent in micro-dollars."""
BODY = json.dumps(
    {"model": "gpt-5", "messages": [{"role": "user", "content": "hi"}], "max_completion_tokens": 10}
).encode()
"""A request for which ten cents are reserved."""
PATIENCE = 60.0


def gateways(spawner: Spawner, upstream: str, url: str, number: int, usd: float) -> list[GatewayProcess]:
    settings = {
        "PRICES": json.dumps({"openai": {"gpt-5": {"input": 0, "output": 10_000}}}),
        "BUDGETS": json.dumps([{"scope": "initiator", "id": "alice", "usd": usd}]),
    }
    return [GatewayProcess(spawner, f"{upstream}/v1", url, **settings) for _ in range(number)]


async def ask(port: int) -> Answer | None:
    """Return the whole response, or None if the gateway died before its end."""
    try:
        async with asyncio.timeout(PATIENCE), connected(port) as client:
            await client.send("POST", CHAT, BODY)
            head = (await client.reader.readuntil(b"\r\n\r\n")).decode()
            length = re.search(r"(?i)content-length: (\d+)", head)
            assert length is not None, head
            return Answer(int(head.split()[1]), [], await client.reader.readexactly(int(length[1])))
    except (OSError, asyncio.IncompleteReadError):
        return None


class Counter:
    """Alice's counter of this month."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.most = 0
        """The largest sum of spent and reserved micro-dollars that was ever read."""
        self.looks = 0
        self._spent = 0

    async def read(self) -> tuple[int, int]:
        async with self._database.reading() as connection:
            rows = (await connection.execute(select(budget_counters.c.spent, budget_counters.c.reserved))).all()
        spent, reserved = (rows[0].spent, rows[0].reserved) if rows else (0, 0)
        self.most = max(self.most, spent + reserved)
        self.looks += 1
        self._spent = spent
        assert reserved >= 0
        return spent, reserved

    async def has_grown(self) -> bool:
        """Whether more is spent than at the previous read."""
        before = self._spent
        return (await self.read())[0] > before

    async def watch(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self.read()
            await asyncio.sleep(0.005)


@asynccontextmanager
async def counter(url: str) -> AsyncIterator[Counter]:
    database = Database(url)
    database.open(create=False)
    try:
        yield Counter(database)
    finally:
        await database.close()


def statuses(answers: Sequence[Answer | None]) -> dict[int, int]:
    found: dict[int, int] = {}
    for answer in answers:
        status = 0 if answer is None else answer.status
        found[status] = found.get(status, 0) + 1
    return found
