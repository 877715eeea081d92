from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest

from fastapi_aibridge.recorder.database import Database
from fastapi_aibridge.recorder.recorder import InterceptionQuery
from fastapi_aibridge.recorder.retention import prune
from fastapi_aibridge.recorder.sql import SQLRecorder
from fastapi_aibridge.recorder.usage import UsageBy, UsageQuery
from tests.waiting import until

from .builders import NOON, ending, full_facts, interception

pytestmark = pytest.mark.anyio


class MovedClock:
    """A clock that only the test moves."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self._sleepers: list[tuple[datetime, asyncio.Event]] = []

    def __call__(self) -> datetime:
        return self.now

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.Event()
        self._sleepers.append((self.now + timedelta(seconds=seconds), woken))
        await woken.wait()

    async def move(self, by: timedelta) -> None:
        """Move the clock once both tasks of the recorder are asleep."""
        await until(lambda: len(self._sleepers) == 2)
        self.now += by
        due = [woken for moment, woken in self._sleepers if moment <= self.now]
        self._sleepers = [sleeper for sleeper in self._sleepers if sleeper[0] > self.now]
        for woken in due:
            woken.set()


async def ids(recorder: SQLRecorder) -> set[str]:
    return {item.interception.id for item in (await recorder.list(InterceptionQuery(limit=1000))).items}


async def record(recorder: SQLRecorder, started_at: datetime, *, ended: bool = True) -> str:
    begun = interception(started_at=started_at)
    await recorder.start(begun)
    if ended:
        await recorder.end(begun.id, ending(), full_facts())
    return begun.id


async def test_upkeep_deletes_what_is_older_than_the_retention(url: str) -> None:
    """Old interceptions are deleted with their facts and sums; recent and running ones stay."""
    clock = MovedClock(NOON)
    async with SQLRecorder(url, retention=60 * 86400, clock=clock, sleep=clock.sleep) as recorder:
        old = await record(recorder, NOON - timedelta(days=59))
        running = await record(recorder, NOON - timedelta(days=59), ended=False)
        young = await record(recorder, NOON)
        assert await ids(recorder) == {old, running, young}
        await clock.move(timedelta(days=2))

        async def gone() -> bool:
            return old not in await ids(recorder)

        await until(gone)
        assert await ids(recorder) == {running, young}
        assert await recorder.get(old) is None


async def test_sums_of_days_go_with_their_interceptions(url: str) -> None:
    """The sums of a day are deleted once the whole day is older than the retention."""
    clock = MovedClock(NOON + timedelta(days=3))
    async with SQLRecorder(url, retention=60 * 86400, clock=clock, sleep=clock.sleep) as recorder:
        await record(recorder, NOON)
        await record(recorder, NOON + timedelta(days=1))
        await until(lambda: not recorder.pending)
        await recorder.run_upkeep()
        await recorder.run_upkeep()
        clock.now += timedelta(days=57, hours=13)
        await recorder.run_upkeep()
        (row,) = await recorder.usage(UsageQuery(by=(UsageBy.DAY,)))
        assert row.day == (NOON + timedelta(days=1)).date()


async def test_retention_of_zero_keeps_all(url: str) -> None:
    """A retention of zero keeps all records."""
    async with SQLRecorder(url, retention=0) as recorder:
        kept = await record(recorder, NOON - timedelta(days=10_000))
        await recorder.run_upkeep()
        assert await ids(recorder) == {kept}


async def test_pruning_lets_writers_through(url: str) -> None:
    """Pruning uses small transactions, so that concurrent writes do not wait for its end."""
    async with SQLRecorder(url, retention=0) as recorder:
        await asyncio.gather(*(record(recorder, NOON) for _ in range(100)))
        await until(lambda: not recorder.pending)
        database = Database(url)
        database.open(create=False)
        pruning = asyncio.create_task(prune(database, NOON + timedelta(days=1), batch=5))
        recorded = 0
        while not pruning.done():
            await record(recorder, NOON + timedelta(days=2))
            recorded += 1
        assert await pruning == 100
        assert recorded >= 5
        await database.close()
        assert len(await ids(recorder)) == recorded
