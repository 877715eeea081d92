from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest

from fastapi_aibridge.errors import RecorderUnavailable
from fastapi_aibridge.recorder.batch import Batch
from fastapi_aibridge.recorder.sql import SQLRecorder
from fastapi_aibridge.recorder.writer import Writer
from tests.waiting import until

from .builders import ending, full_facts, interception

pytestmark = pytest.mark.anyio


class GatedSink:
    """A sink whose commits wait for the test's gate and can be made to fail."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.entered = asyncio.Event()
        self.attempts = 0
        self.written: list[Batch] = []
        self.failure: Callable[[Batch], Exception | None] = lambda _: None
        self.closed = False

    async def write(self, batch: Batch) -> None:
        batch = replace(batch, inbox=batch.inbox[:])
        self.attempts += 1
        self.entered.set()
        await self.gate.wait()
        failure = self.failure(batch)
        if failure is not None:
            raise failure
        self.written.append(batch)

    async def close(self) -> None:
        self.closed = True

    @property
    def inboxes(self) -> list[list[str]]:
        """The ids that each commit wrote to the inbox, without commits that wrote none."""
        return [[orjson.loads(row[2])[0] for row in batch.inbox] for batch in self.written if batch.inbox]

    def rows(self, *kinds: str) -> list[Any]:
        return [row for batch in self.written for kind in kinds for row in getattr(batch, kind)]

    @property
    def left(self) -> set[str]:
        """The ids that are still in the inbox."""
        inbox: dict[int, str] = {}
        for batch in self.written:
            inbox |= {row[1]: orjson.loads(row[2])[0] for row in batch.inbox}
            inbox = {number: name for number, name in inbox.items() if number > batch.filed_up_to}
        return set(inbox.values())


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def begin(writer: Writer, name: str) -> asyncio.Task[None]:
    return asyncio.create_task(writer.start(name, (name,)))


def writer_on(sink: GatedSink, **options: Any) -> Writer:
    return Writer(sink, "r", **options)


async def test_starts_that_arrive_during_a_commit_share_the_next() -> None:
    """The first start has a commit of its own, and the hundred that arrive meanwhile share the next."""
    sink = GatedSink()
    writer = writer_on(sink)
    first = begin(writer, "first")
    await sink.entered.wait()
    others = [begin(writer, f"i{number}") for number in range(100)]
    await settle()
    assert not any(task.done() for task in (first, *others))
    sink.gate.set()
    await asyncio.gather(first, *others)
    assert [len(names) for names in sink.inboxes] == [1, 100]
    assert writer.stats.commits == 2
    assert await writer.close(1) == 0
    assert sink.closed
    assert sink.left == set()


async def test_what_ends_soon_is_put_in_its_place_once() -> None:
    """The start, end and facts of short interceptions are filed as one row each, in one commit."""
    sink = GatedSink()
    sink.gate.set()
    writer = writer_on(sink)
    for name in ("a", "b"):
        await writer.start(name, (name,))
        await writer.put(name, (name, "completed", None, False), (name, 1, "{}"))
    await writer.start("c", ("c",))
    await writer.flush()
    await writer.put("c", ("c", "failed", None, False), None)
    assert await writer.close(1) == 0
    filings = [batch for batch in sink.written if batch.filed or batch.ends]
    assert [row[:2] for row in filings[0].filed] == [("a", "completed"), ("b", "completed"), ("c", "running")]
    assert [row[:2] for row in filings[0].facts] == [("a", 1), ("b", 1)]
    assert filings[0].ends == []
    assert filings[1].ends == [("c", "failed", None, False)]
    assert len(filings) == 2
    assert sink.left == set()


async def test_what_waits_is_put_in_its_place_without_being_asked() -> None:
    """A start is filed after a short delay, without any further request."""
    sink = GatedSink()
    sink.gate.set()
    writer = writer_on(sink, filing_delay=0.001)
    await writer.start("a", ("a",))
    await until(lambda: not writer.pending)
    assert [row[0] for row in sink.rows("filed")] == ["a"]
    assert await writer.close(1) == 0


async def test_a_full_queue_pushes_back_and_drops_nothing() -> None:
    """Beyond the bound a writer waits for space; an end whose writer is cancelled is still recorded."""
    sink = GatedSink()
    writer = writer_on(sink, max_pending=10)
    for number in range(10):
        await asyncio.wait_for(writer.put(f"{number}", (number,), None), 10)
    waiting = [asyncio.create_task(writer.put(f"{number}", (number,), None)) for number in range(10, 14)]
    await settle()
    assert not any(task.done() for task in waiting)
    waiting[0].cancel()
    await asyncio.wait([waiting[0]])
    sink.gate.set()
    await asyncio.gather(*waiting[1:])
    assert await writer.close(1) == 0
    assert sorted(row[0] for row in sink.rows("ends")) == list(range(14))


async def test_facts_that_weigh_too_much_push_back_too() -> None:
    """The queue is bounded in bytes and in rows, and a commit takes a limited number of bytes."""
    sink = GatedSink()
    writer = writer_on(sink, max_bytes=20_000_000)
    for number in range(2):
        await writer.put(f"i{number}", None, (f"i{number}", 1, "x" * 10_000_000))
    waiting = asyncio.create_task(writer.put("i2", None, ("i2", 1, "{}")))
    await settle()
    assert not waiting.done()
    sink.gate.set()
    await waiting
    assert await writer.close(1) == 0
    assert [len(batch.facts) for batch in sink.written] == [1, 1, 1]


async def test_large_texts_are_written_apart_from_starts() -> None:
    """A start waits for at most one commit of large texts, not for all that are queued."""
    sink = GatedSink()
    writer = writer_on(sink, filing_delay=0)
    for number in range(8):
        await writer.put(f"i{number}", None, (f"i{number}", 1, "x" * 600_000))
    await sink.entered.wait()
    starting = [begin(writer, "a"), begin(writer, "b")]
    await settle()
    sink.gate.set()
    await asyncio.gather(*starting)
    assert await writer.close(1) == 0
    assert sink.inboxes == [["a", "b"]]
    assert [(len(batch.inbox), len(batch.facts)) for batch in sink.written][:3] in (
        [(0, 2), (2, 0), (0, 2)],
        [(0, 2), (0, 2), (2, 0)],
    )
    assert len(sink.rows("facts")) == 8


async def test_a_start_that_is_cancelled_before_its_commit_is_not_written() -> None:
    """A start that is cancelled while it waits in the queue is not written."""
    sink = GatedSink()
    writer = writer_on(sink)
    first = begin(writer, "first")
    await sink.entered.wait()
    second = begin(writer, "second")
    await settle()
    second.cancel()
    sink.gate.set()
    await first
    assert await writer.close(1) == 0
    assert sink.inboxes == [["first"]]


async def test_a_start_that_is_cancelled_during_its_commit_leaves_the_inbox() -> None:
    """A start that is cancelled during its commit is removed from the inbox, because nobody would end it."""
    sink = GatedSink()
    writer = writer_on(sink)
    first = begin(writer, "first")
    await sink.entered.wait()
    first.cancel()
    await asyncio.wait([first])
    sink.gate.set()
    assert await writer.close(1) == 0
    assert sink.rows("filed") == []
    assert sink.left == set()


async def test_a_start_that_is_cancelled_just_after_its_commit_is_taken_back() -> None:
    """A start that is cancelled at the moment of its commit's success is removed too."""
    sink = GatedSink()
    writer = writer_on(sink)
    first = begin(writer, "first")
    await sink.entered.wait()
    sink.gate.set()
    for _ in range(20):
        if writer._queue.unfiled:
            break
        await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    assert first.cancelled()
    assert await writer.close(1) == 0
    assert [row for row in sink.rows("filed", "ends") if "running" in row] == []
    assert sink.left == set()


async def test_while_the_database_is_away_starts_fail_in_time_and_ends_wait() -> None:
    """In an outage the first start fails after its timeout and later ones at once; ends are written afterwards."""
    sink = GatedSink()
    sink.gate.set()
    sink.failure = lambda _: sqlite3.OperationalError("disk I/O error")
    writer = writer_on(sink, start_timeout=0.1)
    await writer.put("e1", ("e1",), ("e1", 1, "{}"))
    with pytest.raises(RecorderUnavailable):
        await asyncio.wait_for(writer.start("first", ("first",)), 10)
    assert not writer.available
    before = sink.attempts
    with pytest.raises(RecorderUnavailable):
        await writer.start("second", ("second",))
    assert sink.attempts == before
    await writer.put("e2", ("e2",), None)
    sink.failure = lambda _: None
    await until(lambda: not writer.pending)
    await writer.start("third", ("third",))
    assert await writer.close(1) == 0
    assert sink.rows("ends") == [("e1",), ("e2",)]
    assert sink.inboxes == [["third"]]
    # The first start may have been written after all: a refused start must not stay in the inbox.
    assert sink.left == set()


async def test_the_writer_finds_out_by_itself_that_the_database_is_back() -> None:
    """The writer notices the end of an outage even if nothing but refused starts was tried."""
    sink = GatedSink()
    sink.gate.set()
    sink.failure = lambda _: ConnectionResetError()
    writer = writer_on(sink, start_timeout=0.05)
    with pytest.raises(RecorderUnavailable):
        await writer.start("first", ("first",))
    assert not writer.available
    sink.failure = lambda _: None
    await until(lambda: writer.available)
    await writer.start("second", ("second",))
    assert await writer.close(2) == 0
    assert [row[0] for row in sink.rows("filed")] == ["second"]


async def test_a_database_that_hangs_holds_nobody_longer_than_the_timeout() -> None:
    """While a commit hangs, starts in it, behind it and after it are refused in time."""
    sink = GatedSink()
    writer = writer_on(sink, start_timeout=0.1)
    tasks = [begin(writer, "first")]
    await sink.entered.wait()
    tasks.append(begin(writer, "second"))
    done, _ = await asyncio.wait(tasks, timeout=1)
    assert len(done) == 2
    assert [type(task.exception()) for task in tasks] == [RecorderUnavailable] * 2
    with pytest.raises(RecorderUnavailable):
        await writer.start("third", ("third",))
    sink.gate.set()
    await until(lambda: writer.available)
    assert await writer.close(1) == 0
    assert sink.inboxes == [["first"]]
    assert sink.rows("filed") == []
    assert sink.left == set()


async def test_a_row_that_the_database_refuses_takes_no_other_with_it() -> None:
    """A refused row fails only its own start; the other rows of the commit are written."""
    sink = GatedSink()

    def refuse(batch: Batch) -> Exception | None:
        rows = [*batch.inbox, *batch.filed, *batch.ends, *batch.facts]
        return ValueError("bad") if any("bad" in str(row) for row in rows) else None

    sink.failure = refuse
    writer = writer_on(sink)
    tasks = [begin(writer, name) for name in ("a", "bad", "b")]
    await settle()
    await writer.put("e", ("e",), ("bad", 1, "{}"), 17)
    sink.gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [type(None), RecorderUnavailable, type(None)]
    assert await writer.close(1) == 0
    assert [row[0] for row in sink.rows("filed")] == ["a", "b"]
    assert sink.rows("ends", "facts") == [("e",)]
    assert any(batch.stale_days == {17} for batch in sink.written)
    assert writer.stats.refused == 2
    assert sink.left == set()


async def test_closing_is_bounded_when_the_database_stays_away() -> None:
    """Closing has a time limit: rows that could not be written are counted, and waiting starts are refused."""
    sink = GatedSink()
    writer = writer_on(sink)
    first = begin(writer, "first")
    await sink.entered.wait()
    await writer.put("e", ("e",), None)
    assert await writer.close(0.05) == 2
    with pytest.raises(RecorderUnavailable):
        await first
    with pytest.raises(RecorderUnavailable):
        await writer.start("late", ("late",))


async def test_concurrent_interceptions_share_commits_in_a_real_database(url: str) -> None:
    """Two hundred concurrent interceptions share few commits, and closing writes every end."""
    begun = [interception() for _ in range(200)]
    async with SQLRecorder(url) as recorder:

        async def run(number: int) -> None:
            await recorder.start(begun[number])
            await recorder.end(begun[number].id, ending(), full_facts())

        await asyncio.gather(*map(run, range(200)))
        await until(lambda: not recorder.pending)
        stats = recorder.stats
    assert stats.rows == 600
    assert stats.commits < 40
    async with SQLRecorder(url) as recorder:
        records = [await recorder.get(each.id) for each in begun]
    assert all(record and record.ending and record.facts == full_facts() for record in records)


async def test_another_process_reads_what_was_recorded_a_moment_later(url: str) -> None:
    """A recorder reads its own records at once, and another process reads them a moment later."""
    begun = interception()
    async with SQLRecorder(url) as recorder, SQLRecorder(url) as other:
        await recorder.start(begun)

        async def seen() -> bool:
            return await other.get(begun.id) is not None

        await until(seen)


async def test_a_closed_recorder_refuses_starts(url: str) -> None:
    """A recorder that is not open raises `RecorderUnavailable`."""
    recorder = SQLRecorder(url)
    with pytest.raises(RecorderUnavailable):
        await recorder.start(interception())
    async with recorder:
        await recorder.start(interception())
    with pytest.raises(RecorderUnavailable):
        await recorder.start(interception())


async def test_starts_that_come_one_after_the_other_share_a_commit() -> None:
    """Under load a commit waits briefly for the next starts; a start that comes alone does not wait."""
    sink = GatedSink()
    sink.gate.set()
    writer = writer_on(sink)
    await writer.start("alone", ("alone",))
    pair = [begin(writer, name) for name in ("a", "b", "c")]
    for name in ("d", "e"):
        await asyncio.sleep(0)
        pair.append(begin(writer, name))
    await asyncio.gather(*pair)
    assert [len(names) for names in sink.inboxes if names] == [1, 5]
    assert await writer.close(1) == 0
