from __future__ import annotations

import asyncio
import csv
import io
import time
from typing import Any

import orjson
import psutil
import pytest

from fastapi_aibridge.recorder.export import CSV_COLUMNS, ExportFormat, export
from fastapi_aibridge.recorder.jsonform import record_json
from fastapi_aibridge.recorder.memory import MemoryRecorder
from fastapi_aibridge.recorder.recorder import InterceptionQuery, InvalidCursor
from fastapi_aibridge.recorder.records import Facts, Prompt
from fastapi_aibridge.recorder.sql import SQLRecorder
from tests.processor_time import RUNS
from tests.waiting import until

from .builders import at, ending, full_facts, interception

pytestmark = pytest.mark.anyio


async def exported(*arguments: Any, **options: Any) -> bytes:
    return b"".join([chunk async for chunk in export(*arguments, **options)])


async def test_json_lines_are_the_json_form_of_each_interception() -> None:
    """JSON lines have one interception each, newest first, and are filtered like the listing."""
    recorder = MemoryRecorder()
    for minute in range(120):
        begun = interception(started_at=at(minute), initiator_id="bob" if minute % 2 else "alice")
        await recorder.start(begun)
        await recorder.end(begun.id, ending(), full_facts())
    lines = (await exported(recorder)).splitlines()
    page = await recorder.list(InterceptionQuery(limit=500))
    assert [orjson.loads(line) for line in lines] == [record_json(record) for record in page.items]
    assert len((await exported(recorder, InterceptionQuery(initiator_id="bob", limit=1))).splitlines()) == 60


async def test_csv_has_a_column_for_each_member() -> None:
    """CSV keeps texts with commas, quotes and line breaks; nested members are JSON."""
    recorder = MemoryRecorder()
    begun = interception(model='a,"b"\r\nc', metadata={"team": "blue"}, started_at=at(0))
    await recorder.start(begun)
    await recorder.end(begun.id, ending(error="=HYPERLINK(1)"), full_facts())
    await recorder.start(interception(started_at=at(1)))
    text = (await exported(recorder, format=ExportFormat.CSV)).decode()
    running, ended = csv.DictReader(io.StringIO(text, newline=""))
    assert tuple(ended) == CSV_COLUMNS
    assert ended["model"] == 'a,"b"\r\nc'
    assert ended["error"] == "'=HYPERLINK(1)"
    assert (ended["streaming"], ended["output_tokens"], ended["upstream_status"]) == ("true", "10", "200")
    assert orjson.loads(ended["metadata"]) == {"team": "blue"}
    assert orjson.loads(ended["tool_usages"])[0]["tool"] == "read_file"
    assert (running["status"], running["ended_at"], running["prompts"]) == ("running", "", "[]")


@pytest.mark.parametrize("kind", list(ExportFormat))
async def test_an_export_that_cannot_be_read_gives_no_byte(kind: ExportFormat) -> None:
    """Errors are raised before the first chunk, so that a server can still respond with an error."""
    chunks = export(MemoryRecorder(), InterceptionQuery(cursor="wrong"), format=kind)
    with pytest.raises(InvalidCursor):
        await anext(chunks)


@pytest.mark.parametrize("kind", list(ExportFormat))
async def test_an_empty_export_is_well_formed(kind: ExportFormat) -> None:
    """An empty export has nothing but the header, if its format has one."""
    lines = (await exported(MemoryRecorder(), format=kind)).splitlines()
    assert len(lines) == (0 if kind is ExportFormat.JSONL else 1)


async def test_ten_thousand_rows_are_exported_in_flat_memory(url: str) -> None:
    """The peak of memory does not grow with the rows, and each row is exported once in spite of concurrent writes."""
    facts = Facts(prompts=[Prompt(message_id="m", text="x" * 5000)])
    ids = set()
    async with SQLRecorder(url, retention=0, start_timeout=60) as recorder:
        for block in range(12):
            begun = [interception(started_at=at(block)) for _ in range(1000)]
            await asyncio.gather(*map(recorder.start, begun))
            for each in begun:
                await recorder.end(each.id, ending(), facts)
                ids.add(each.id)
        await until(lambda: not recorder.pending)
        held: list[int] = []
        count = 0
        async for chunk in export(recorder):
            for line in chunk.splitlines():
                ids.remove(orjson.loads(line)["id"])
                count += 1
            if count // 3000 > len(held):
                await recorder.start(interception(started_at=at(100)))
                held.append(psutil.Process().memory_info().rss)
    assert count == 12_000
    assert ids == set()
    # All rows together would be 60 MB.
    assert max(held[1:]) < held[0] + 12_000_000


async def test_large_records_make_small_pages(url: str) -> None:
    """An export of large records reads few of them at a time."""
    facts = Facts(prompts=[Prompt(message_id="m", text="x" * 1_000_000)])
    async with SQLRecorder(url, retention=0) as recorder:
        for minute in range(60):
            begun = interception(started_at=at(minute))
            await recorder.start(begun)
            await recorder.end(begun.id, ending(), facts if minute < 10 else Facts())
        await until(lambda: not recorder.pending)
        sizes = [len(chunk) async for chunk in export(recorder, InterceptionQuery(started_before=at(50)))]
        assert sum(sizes) > 10_000_000
        assert max(sizes) < 5_000_000


@pytest.mark.parametrize("kind", list(ExportFormat))
async def test_others_have_their_turn(kind: ExportFormat) -> None:
    """No step of an export holds the event loop for long, whatever callers have written into their records."""
    recorder = MemoryRecorder()
    for minute in range(30):
        begun = interception(started_at=at(minute))
        await recorder.start(begun)
        await recorder.end(begun.id, ending(), Facts(prompts=[Prompt(message_id="m", text=",=" * 60_000)]))
    least = 1.0
    for _ in range(RUNS):
        exporting = asyncio.create_task(exported(recorder, format=kind))
        longest = 0.0
        while not exporting.done():
            before = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - before)
        assert (await exporting).count(b"\n") >= 30
        least = min(least, longest)
        if least < 0.02:
            break
    assert least < 0.02
