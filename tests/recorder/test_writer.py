from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from fastapi_aibridge.errors import RecorderUnavailable
from fastapi_aibridge.recorder.batch import Rows
from fastapi_aibridge.recorder.sql import SQLRecorder
from fastapi_aibridge.recorder.writer import Writer

from .making import ending, full_facts, interception, until

pytestmark = pytest.mark.anyio

Written = tuple[Rows, Rows, Rows, set[int]]


class GatedSink:
    """A database whose commits take until the test lets them through, or fail with what the test says."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.entered = asyncio.Event()
        self.attempts: list[Written] = []
        self.written: list[Written] = []
        self.failure: Callable[[Written], Exception | None] = lambda _: None
        self.closed = False

    async def write(self, starts: Rows, ends: Rows, facts: Rows, unsealed: set[int]) -> None:
        batch = (starts[:], ends[:], facts[:], set(unsealed))
        self.attempts.append(batch)
        self.entered.set()
        await self.gate.wait()
        failure = self.failure(batch)
        if failure is not None:
            raise failure
        self.written.append(batch)

    async def close(self) -> None:
        self.closed = True


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def begin(writer: Writer, name: str) -> asyncio.Task[None]:
    return asyncio.create_task(writer.start(name, (name,)))


async def test_writes_that_arrive_during_a_commit_share_the_next() -> None:
    """One commit for the first, and one for the hundred that came while it ran."""
    sink = GatedSink()
    writer = Writer(sink)
    first = begin(writer, "first")
    await sink.entered.wait()
    others = [begin(writer, f"i{number}") for number in range(100)]
    await writer.put(("e",), ("e", 1, "{}"))
    await settle()
    assert not any(task.done() for task in (first, *others))
    sink.gate.set()
    await asyncio.gather(first, *others)
    assert [len(starts) for starts, *_ in sink.written] == [1, 100]
    assert sink.written[1][1:3] == ([("e",)], [("e", 1, "{}")])
    assert writer.stats.commits == 2
    assert writer.stats.rows == 103
    assert await writer.close(1) == 0
    assert sink.closed


async def test_a_full_queue_pushes_back_and_drops_nothing() -> None:
    """Beyond the bound a writer waits until there is room; a cancelled one leaves its end behind all the same."""
    sink = GatedSink()
    writer = Writer(sink, max_pending=10)
    for number in range(10):
        await asyncio.wait_for(writer.put((number,), None), 1)
    waiting = [asyncio.create_task(writer.put((number,), None)) for number in range(10, 14)]
    await settle()
    assert not any(task.done() for task in waiting)
    waiting[0].cancel()
    await asyncio.wait([waiting[0]])
    sink.gate.set()
    await asyncio.gather(*waiting[1:])
    assert await writer.close(1) == 0
    assert sorted(row[0] for _, ends, *_ in sink.written for row in ends) == list(range(14))


async def test_facts_that_weigh_too_much_push_back_too() -> None:
    """The queue is bounded in bytes as well as in rows, and a commit takes only so many of them."""
    sink = GatedSink()
    writer = Writer(sink, max_bytes=20_000_000)
    for number in range(2):
        await writer.put(None, (f"i{number}", 1, "x" * 10_000_000))
    waiting = asyncio.create_task(writer.put(None, ("i2", 1, "{}")))
    await settle()
    assert not waiting.done()
    sink.gate.set()
    await waiting
    assert await writer.close(1) == 0
    assert [len(facts) for _, _, facts, _ in sink.written] == [1, 1, 1]


async def test_a_start_that_is_cancelled_before_its_commit_is_not_written() -> None:
    """Who goes away while waiting for its turn leaves nothing behind."""
    sink = GatedSink()
    writer = Writer(sink)
    first = begin(writer, "first")
    await sink.entered.wait()
    second = begin(writer, "second")
    await settle()
    second.cancel()
    sink.gate.set()
    await first
    assert await writer.close(1) == 0
    assert [starts for starts, *_ in sink.written] == [[("first",)]]


async def test_a_start_that_is_cancelled_during_its_commit_is_ended() -> None:
    """Nobody else would end it, so the writer does."""
    sink = GatedSink()
    writer = Writer(sink)
    first = begin(writer, "first")
    await sink.entered.wait()
    first.cancel()
    await asyncio.wait([first])
    sink.gate.set()
    assert await writer.close(1) == 0
    assert [row[:2] for _, ends, *_ in sink.written for row in ends] == [("first", "cancelled")]


async def test_while_the_database_is_away_starts_fail_in_time_and_ends_wait() -> None:
    """A start fails after its timeout, later ones at once, and when the database returns nothing that ended is lost."""
    sink = GatedSink()
    sink.gate.set()
    sink.failure = lambda _: sqlite3.OperationalError("disk I/O error")
    writer = Writer(sink, start_timeout=0.1)
    await writer.put(("e1",), ("e1", 1, "{}"))
    with pytest.raises(RecorderUnavailable):
        await asyncio.wait_for(writer.start("first", ("first",)), 1)
    assert not writer.available
    before = len(sink.attempts)
    with pytest.raises(RecorderUnavailable):
        await writer.start("second", ("second",))
    assert len(sink.attempts) == before
    await writer.put(("e2",), None)
    sink.failure = lambda _: None
    await until(lambda: not writer.pending)
    await writer.start("third", ("third",))
    assert await writer.close(1) == 0
    ends = [row for _, ends, *_ in sink.written for row in ends]
    assert ("e1",) in ends
    assert ("e2",) in ends
    # The first may have been written after all: what was refused must not run for ever.
    assert [row[:2] for row in ends if row[0] == "first"] in ([], [("first", "failed")])
    assert [starts for starts, *_ in sink.written if starts] == [[("third",)]]


async def test_a_start_given_up_after_a_failed_try_is_ended() -> None:
    """Whether a failed commit took place nobody knows, so the record is ended in case that it did."""
    sink = GatedSink()
    sink.gate.set()
    sink.failure = lambda _: ConnectionResetError()
    writer = Writer(sink, start_timeout=0.05)
    with pytest.raises(RecorderUnavailable):
        await writer.start("first", ("first",))
    sink.failure = lambda _: None
    assert await writer.close(2) == 0
    assert [row[:2] for _, ends, *_ in sink.written for row in ends] == [("first", "failed")]


async def test_a_database_that_hangs_holds_nobody_longer_than_the_timeout() -> None:
    """Those in the commit that hangs, those behind it, and those who come later are refused in time."""
    sink = GatedSink()
    writer = Writer(sink, start_timeout=0.1)
    tasks = [begin(writer, "first")]
    await sink.entered.wait()
    tasks.append(begin(writer, "second"))
    done, _ = await asyncio.wait(tasks, timeout=1)
    assert [type(task.exception()) for task in tasks] == [RecorderUnavailable] * 2
    assert len(done) == 2
    with pytest.raises(RecorderUnavailable):
        await writer.start("third", ("third",))
    sink.gate.set()
    await until(lambda: not writer.pending)
    assert writer.available
    assert await writer.close(1) == 0
    assert [row[:2] for _, ends, *_ in sink.written for row in ends] == [("first", "failed")]
    assert [starts for starts, *_ in sink.written if starts] == [[("first",)]]


async def test_a_row_that_the_database_refuses_takes_no_other_with_it() -> None:
    """The rows that share its commit are written, its own start raises."""
    sink = GatedSink()

    def refuse(written: Written) -> Exception | None:
        return ValueError("bad") if any(row[0] == "bad" for rows in written[:3] for row in rows) else None

    sink.failure = refuse
    writer = Writer(sink)
    tasks = [begin(writer, name) for name in ("a", "bad", "b")]
    await settle()
    await writer.put(("e",), ("bad", 1, "{}"), 17)
    sink.gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [type(None), RecorderUnavailable, type(None)]
    assert await writer.close(1) == 0
    written: list[Any] = [row for batch in sink.written for rows in batch[:2] for row in rows]
    assert written == [("a",), ("b",), ("e",)]
    assert any(unsealed == {17} for *_, unsealed in sink.written)
    assert writer.stats.refused == 2


async def test_closing_is_bounded_when_the_database_stays_away() -> None:
    """What could not be written is counted, and starts that still wait are refused."""
    sink = GatedSink()
    writer = Writer(sink)
    first = begin(writer, "first")
    await writer.put(("e",), None)
    await sink.entered.wait()
    assert await writer.close(0.05) == 2
    with pytest.raises(RecorderUnavailable):
        await first
    with pytest.raises(RecorderUnavailable):
        await writer.start("late", ("late",))


async def test_concurrent_interceptions_share_commits_in_a_real_database(url: str) -> None:
    """Two hundred at once take far fewer commits than writes, and leaving writes all that was ended."""
    begun = [interception() for _ in range(200)]
    async with SQLRecorder(url) as recorder:

        async def run(number: int) -> None:
            await recorder.start(begun[number])
            await recorder.end(begun[number].id, ending(), full_facts())

        await asyncio.gather(*map(run, range(200)))
        stats = recorder.stats
    assert stats.rows == 600
    assert stats.commits < 40
    async with SQLRecorder(url) as recorder:
        records = [await recorder.get(each.id) for each in begun]
    assert all(record and record.ending and record.facts == full_facts() for record in records)


async def test_a_closed_recorder_refuses_starts(url: str) -> None:
    """Before it is entered and after it is left a recorder raises what the gateway knows to answer."""
    recorder = SQLRecorder(url)
    with pytest.raises(RecorderUnavailable):
        await recorder.start(interception())
    async with recorder:
        await recorder.start(interception())
    with pytest.raises(RecorderUnavailable):
        await recorder.start(interception())
