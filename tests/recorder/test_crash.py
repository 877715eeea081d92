from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest
from sqlalchemy import delete, insert, select, update

from fastapi_aibridge.recorder.database import Database
from fastapi_aibridge.recorder.process import ProcessIdentity
from fastapi_aibridge.recorder.recorder import InterceptionQuery
from fastapi_aibridge.recorder.records import Facts, Status
from fastapi_aibridge.recorder.rows import start_row
from fastapi_aibridge.recorder.schema import inbox, interceptions, recorders
from fastapi_aibridge.recorder.sql import SQLRecorder
from fastapi_aibridge.recorder.text import dump
from fastapi_aibridge.recorder.usage import UsageQuery
from tests.waiting import until

from .builders import ending, interception, usage

pytestmark = pytest.mark.anyio


async def status_of(recorder: SQLRecorder, interception_id: str) -> Status:
    record = await recorder.get(interception_id)
    assert record is not None
    return record.ending.status if record.ending else Status.RUNNING


async def execute(url: str, statement: Any) -> Any:
    database = Database(url)
    database.open(create=False)
    try:
        async with database.writing() as connection:
            result = await connection.execute(statement)
            return result.all() if result.returns_rows else None
    finally:
        await database.close()


async def test_kill_9_loses_no_start_and_doubles_none(url: str) -> None:
    """After a kill under load, each interception whose start returned exists once and has an end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.recorder.crashing", url, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    said = [await process.stdout.readline() for _ in range(500)]
    process.kill()
    said += (await process.stdout.read()).splitlines(keepends=True)
    await process.wait()
    started = {line.decode().strip() for line in said if line.endswith(b"\n")}
    async with SQLRecorder(url) as recorder:
        records = {}
        cursor = None
        while True:
            page = await recorder.list(InterceptionQuery(limit=500, cursor=cursor))
            for record in page.items:
                assert record.interception.id not in records
                records[record.interception.id] = record
            cursor = page.next_cursor
            if cursor is None:
                break
    assert started <= set(records)
    assert len(records) - len(started) <= 50
    endings = [record.ending for record in records.values()]
    assert {each.status for each in endings if each} <= {Status.COMPLETED, Status.INTERRUPTED}
    assert None not in endings
    for record in records.values():
        assert len(record.facts.token_usages) <= 2
        if record.ending and record.ending.status is Status.COMPLETED:
            assert len(record.facts.token_usages) == 2
    assert any(each and each.status is Status.INTERRUPTED for each in endings)


async def test_a_new_recorder_leaves_those_of_the_living_alone(url: str) -> None:
    """A second worker's start and its upkeep leave the running interceptions of the first worker alone."""
    begun = interception()
    async with SQLRecorder(url, lease=1) as first:
        await first.start(begun)
        async with SQLRecorder(url, lease=1) as second:
            await asyncio.sleep(2)
            assert await status_of(second, begun.id) is Status.RUNNING
        await first.end(begun.id, ending(), Facts())
    async with SQLRecorder(url) as recorder:
        assert await status_of(recorder, begun.id) is Status.COMPLETED


async def test_what_a_dead_recorder_left_is_interrupted_with_its_known_usage(url: str) -> None:
    """The interceptions of a recorder on another machine are interrupted once its lease has expired.

    A recorder that has only just started leaves them alone, because after an outage all leases look expired.
    """
    begun = interception()
    async with SQLRecorder(url) as recorder:
        await recorder.start(begun)
        await recorder.observe(begun.id, Facts(token_usages=[usage(3, cost=30)]))
        await recorder.observe(begun.id, Facts(token_usages=[usage(4, cost=40)]))
        await until(lambda: not recorder.pending)
        # As if a recorder on another machine had started it, and the machine had then been switched off.
        row = {"id": "elsewhere", "host": "far away", "pid": 1, "process_started": "1"}
        await execute(url, insert(recorders).values(**row, heartbeat_at=2**61))
        await execute(url, update(interceptions).values(recorder_id="elsewhere"))
        async with SQLRecorder(url) as second:
            assert await status_of(second, begun.id) is Status.RUNNING
        await execute(url, update(recorders).where(recorders.c.id == "elsewhere").values(heartbeat_at=1))
        async with SQLRecorder(url) as third:
            assert await status_of(third, begun.id) is Status.RUNNING
        async with SQLRecorder(url, lease=0.4) as third:

            async def interrupted() -> bool:
                return await status_of(third, begun.id) is Status.INTERRUPTED

            await until(interrupted)
            (total,) = await third.usage(UsageQuery())
            assert (total.calls, total.input_tokens, total.cost) == (1, 7, 70)
            left = await third.get(begun.id)
            assert left is not None
            assert left.ending is not None
            assert (left.ending.cost, left.ending.cost_estimated) == (70, True)

            async def forgotten() -> bool:
                return not await execute(url, select(recorders.c.id).where(recorders.c.id == "elsewhere"))

            await until(forgotten)
        # The recorder was alive after all: its real end counts.
        await recorder.end(begun.id, ending(), Facts(token_usages=[usage(5)]))
    async with SQLRecorder(url) as recorder:
        assert await status_of(recorder, begun.id) is Status.COMPLETED
        (total,) = await recorder.usage(UsageQuery())
        assert total.input_tokens == 12


async def test_the_inbox_of_another_release_is_filed(url: str) -> None:
    """Rows in the inbox with fewer or more members, written by an older or newer release, are filed."""
    older, newer = (start_row(interception(id=name), "dead") for name in ("older", "newer"))
    async with SQLRecorder(url):
        pass
    await execute(url, insert(inbox).values(recorder_id="dead", number=1, body=dump(older[:17])))
    await execute(url, insert(inbox).values(recorder_id="dead", number=2, body=dump((*newer, "unheard of"))))
    async with SQLRecorder(url) as recorder:
        assert await status_of(recorder, "older") is Status.INTERRUPTED
        assert await status_of(recorder, "newer") is Status.INTERRUPTED


async def test_the_dead_are_found_while_the_others_run(url: str) -> None:
    """Upkeep finds a recorder that died later, without any restart."""
    begun = interception()
    async with SQLRecorder(url, lease=0.2) as recorder:
        await recorder.start(begun)
        assert await status_of(recorder, begun.id) is Status.RUNNING
        await execute(url, update(interceptions).values(recorder_id="forgotten"))

        async def ended() -> bool:
            return await status_of(recorder, begun.id) is not Status.RUNNING

        await until(ended)
        assert await status_of(recorder, begun.id) is Status.INTERRUPTED


async def test_a_recorder_that_was_taken_for_dead_is_known_again(url: str) -> None:
    """A recorder whose row was deleted is registered again by its next heartbeat."""
    async with SQLRecorder(url, lease=0.2):
        await execute(url, delete(recorders))

        async def known() -> bool:
            return bool(await execute(url, select(recorders.c.id)))

        await until(known)


async def test_leaving_ends_what_still_runs(url: str) -> None:
    """A recorder that closes ends its running interceptions and removes its own row."""
    begun = interception()
    async with SQLRecorder(url) as recorder:
        await recorder.start(begun)
    assert await execute(url, select(recorders.c.id)) == []
    assert await execute(url, select(interceptions.c.status)) == [("interrupted",)]


async def test_a_process_is_told_from_a_later_one_with_its_pid() -> None:
    """A process that has ended, or whose pid belongs to a later process, counts as gone; other processes do not."""
    here = ProcessIdentity.current()
    assert not here.is_gone(here)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=asyncio.subprocess.PIPE)
    other = ProcessIdentity(here.host, process.pid, "0")
    assert other.is_gone(here)
    assert not ProcessIdentity("another", process.pid, "0").is_gone(here)
    process.kill()
    await process.wait()
    assert ProcessIdentity(here.host, process.pid, here.started).is_gone(here)
