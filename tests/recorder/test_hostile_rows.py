"""Rows that a database refuses or that could break a listing: other requests are served, and the app starts again."""

from __future__ import annotations

import asyncio
import math
import random
import sqlite3
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import insert, select, text, update

from fastapi_aibridge.recorder.batch import Batch
from fastapi_aibridge.recorder.bounds import LIMITS
from fastapi_aibridge.recorder.export import ExportFormat, export
from fastapi_aibridge.recorder.jsonform import record_json
from fastapi_aibridge.recorder.recorder import InterceptionQuery
from fastapi_aibridge.recorder.records import Facts, Interception, ProviderObject, Status, ToolUsage
from fastapi_aibridge.recorder.rows import start_row
from fastapi_aibridge.recorder.schema import facts, inbox, interceptions, objects, set_aside
from fastapi_aibridge.recorder.sql import SQLRecorder
from fastapi_aibridge.recorder.text import dump
from fastapi_aibridge.recorder.usage import UsageBy, UsageQuery
from tests.waiting import until

from .builders import ending, full_facts, interception
from .test_crash import execute

pytestmark = pytest.mark.anyio


def noise(length: int) -> str:
    """A text that does not compress."""
    draw = random.Random(length)
    return "".join(chr(draw.randrange(0x4E00, 0x9F00)) for _ in range(length))


LONG = noise(10_000)
TEXTS = ["id", *(name for name in LIMITS if name != "id")]


async def record(recorder: SQLRecorder, begun: Interception) -> None:
    await recorder.start(begun)
    await recorder.end(begun.id, ending(), full_facts())


@pytest.mark.parametrize("name", [*TEXTS, "all"])
async def test_a_text_that_no_index_takes_is_cut(url: str, name: str) -> None:
    """Texts that are too long for an index are cut, each one and all of them together."""
    begun = interception(**{each: LONG + each for each in (TEXTS if name == "all" else [name])})
    async with SQLRecorder(url) as recorder:
        await record(recorder, begun)
        await recorder.note(begun.provider, LONG, begun.initiator_id, LONG)
        await record(recorder, honest := interception())
        await recorder.run_upkeep()
    async with SQLRecorder(url) as recorder:
        assert recorder.stats.refused == 0
        assert await recorder.get(honest.id) is not None
        kept = await recorder.get(begun.id)
        assert kept is not None
        assert kept.interception.truncated
        assert kept.ending is not None
        assert kept.facts == full_facts()
        page = await recorder.list(
            InterceptionQuery(initiator_id=begun.initiator_id, provider=begun.provider, model=begun.model)
        )
        assert kept in page.items
        assert sum(row.calls for row in await recorder.usage(UsageQuery(by=tuple(UsageBy)))) == 2


async def test_two_long_names_stay_two(url: str) -> None:
    """Two long ids that differ only at their end stay two initiators."""
    first, second = (interception(initiator_id=LONG + name) for name in ("1", "2"))
    async with SQLRecorder(url) as recorder:
        await record(recorder, first)
        await record(recorder, second)
        page = await recorder.list(InterceptionQuery(initiator_id=second.initiator_id))
    assert [item.interception.id for item in page.items] == [second.id]


@pytest.mark.parametrize(
    "given",
    [
        {"initiator_id": None},
        {"initiator_id": 5},
        {"api_key_id": b"k"},
        {"model": None},
        {"session_id": 7},
        {"streaming": "yes"},
        {"metadata": ["a"]},
        {"metadata": None},
        {"started_at": 5},
    ],
    ids=str,
)
async def test_what_is_no_record_is_refused_at_its_start(url: str, given: dict[str, Any]) -> None:
    """A start that is not a valid record is refused before anything is written; the next request is served."""
    async with SQLRecorder(url) as recorder:
        with pytest.raises((TypeError, AttributeError)):
            await recorder.start(interception(**given))
        await record(recorder, honest := interception())
    async with SQLRecorder(url) as recorder:
        page = await recorder.list(InterceptionQuery())
    assert [item.interception.id for item in page.items] == [honest.id]


async def test_metadata_and_moments_of_any_kind(url: str) -> None:
    """Metadata that JSON cannot express, too much metadata, and extreme times are recorded."""
    loop: list[Any] = []
    loop.append(loop)
    kinds: list[Any] = [
        {"m": {"n": 2**200, "nan": math.nan, "s": "\ud800\0", "o": object()}},
        {"m": {"deep": loop}},
        {"m": {f"k{number}": LONG for number in range(100)}},
        {"m": {"k": LONG * 1000}},
        {1: 2, None: "x"},
    ]
    async with SQLRecorder(url, retention=0) as recorder:
        for metadata in kinds:
            await record(recorder, interception(metadata=metadata))
        for year in (1, 9999):
            await record(recorder, interception(started_at=datetime(year, 1, 1, tzinfo=UTC)))
        facts = Facts(
            tool_usages=[ToolUsage(message_id="m", call_id="c", tool="t", arguments=loop)],
            objects=[ProviderObject(kind="\0", id="\ud800" * 3000)],
        )
        await recorder.start(begun := interception())
        await recorder.end(begun.id, ending(ended_at=datetime(1, 1, 1, tzinfo=UTC)), facts)
        await recorder.run_upkeep()
    async with SQLRecorder(url, retention=0) as recorder:
        assert recorder.stats.refused == 0
        page = await recorder.list(InterceptionQuery())
        assert len(page.items) == 8
        for item in page.items:
            assert item.ending is not None
            assert 2 < len(dump(record_json(item))) < 100_000


class Hostile:
    """A sink that raises an error for batches with one certain row, and writes all others."""

    def __init__(self, recorder: SQLRecorder, error: Exception) -> None:
        assert recorder._writer is not None
        self._sink = recorder._writer._sink
        self._error = error
        recorder._writer._sink = self
        recorder._writer._committer._sink = self

    async def write(self, batch: Batch) -> None:
        rows = [*batch.inbox, *batch.filed, *batch.ends, *batch.facts, *batch.objects]
        if any("poison" in str(row) for row in rows):
            raise self._error
        await self._sink.write(batch)

    async def close(self) -> None:
        await self._sink.close()


class StateError(Exception):
    def __init__(self, sqlstate: str) -> None:
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    "error",
    [
        StateError("54000"),
        StateError("22021"),
        StateError("XX000"),
        StateError("57014"),
        StateError("40P01"),
        sqlite3.OperationalError("string or blob too big"),
        ConnectionResetError(),
        TimeoutError(),
        RuntimeError(),
        asyncio.CancelledError(),
    ],
    ids=repr,
)
async def test_a_row_at_fault_stands_alone_whatever_the_error(url: str, error: Exception) -> None:
    """A faulty start is refused, and a faulty end or object is set aside; no other row waits long."""
    async with SQLRecorder(url) as recorder:
        Hostile(recorder, error)
        outcomes = await asyncio.wait_for(
            asyncio.gather(
                *(record(recorder, interception(id=f"honest {number}")) for number in range(40)),
                record(recorder, interception(id="poison 1")),
                *(record(recorder, interception(id=f"honest {number}")) for number in range(40, 80)),
                return_exceptions=True,
            ),
            10,
        )
        assert [type(outcome).__name__ for outcome in outcomes if outcome] == ["RecorderUnavailable"]
        await recorder.start(begun := interception())
        await recorder.end(begun.id, ending(error="poison 2"), full_facts())
        await recorder.note("openai", "poison 3", "alice", "response")
        await until(lambda: not recorder.pending)
        assert recorder.available
        assert (recorder.stats.refused, recorder.stats.set_aside) == (3, 2)
    async with SQLRecorder(url) as recorder:
        assert len((await recorder.list(InterceptionQuery(limit=100))).items) == 81
        honest = await recorder.get("honest 79")
        assert honest is not None
        assert honest.facts == full_facts()
    aside = await execute(url, select(set_aside.c.kind, set_aside.c.body).order_by(set_aside.c.seq))
    assert sorted(kind for kind, _ in aside) in (["ends", "objects"], ["filed", "objects"])
    assert all("poison" in body for _, body in aside)


async def test_a_full_disk_is_nobodys_fault(url: str) -> None:
    """A full disk sets no row aside; the queue is written once there is space again."""
    async with SQLRecorder(url) as recorder:
        await recorder.start(begun := interception())
        hostile = Hostile(recorder, StateError("53100"))
        await recorder.end(begun.id, ending(error="poison"), full_facts())
        await until(lambda: not recorder.available)
        hostile._error = StateError("53100")
        assert recorder._writer is not None
        recorder._writer._committer._sink = hostile._sink
        await until(lambda: recorder.available)
        assert recorder.stats.refused == 0
    async with SQLRecorder(url) as recorder:
        kept = await recorder.get(begun.id)
        assert kept is not None
        assert kept.ending is not None
        assert kept.ending.error == "poison"


@pytest.mark.parametrize(
    "body",
    [
        dump(start_row(interception(id="kept"), "dead")).replace('"alice"', dump(LONG * 2)),
        dump(start_row(interception(id="kept"), "dead")).replace('"gpt-5"', dump(noise(2600))),
        "null",
        "not JSON",
        "[1]",
        "[" * 100_000,
        dump(start_row(interception(id="kept"), "dead")).replace('"alice"', "null"),
        dump(start_row(interception(id="kept"), "dead")).replace('"alice"', "7"),
    ],
    ids=range(8),
)
async def test_an_inbox_that_cannot_be_filed_keeps_nobody_from_starting(url: str, body: str) -> None:
    """Invalid rows in the inbox are cut or set aside; their neighbours are filed, and the recorder starts."""
    neighbour = dump(start_row(interception(id="neighbour"), "dead"))
    async with SQLRecorder(url):
        pass
    await execute(url, insert(inbox).values(recorder_id="dead", number=1, body=body))
    await execute(url, insert(inbox).values(recorder_id="dead", number=2, body=neighbour))
    async with SQLRecorder(url) as recorder:
        found = await recorder.get("neighbour")
        assert found is not None
        assert found.ending is not None
        assert found.ending.status is Status.INTERRUPTED
        await record(recorder, interception())
        counted = recorder.stats.set_aside
    assert await execute(url, select(inbox)) == []
    kept = await execute(url, select(interceptions.c.id).where(interceptions.c.id == "kept"))
    aside = await execute(url, select(set_aside.c.kind))
    assert len(kept) + len(aside) == 1
    assert counted == len(aside)
    if LONG[:100] in body or (len(body) < 20_000 and noise(2600)[:100] in body):
        assert kept


@pytest.mark.parametrize(
    "damage",
    [
        update(interceptions).values(metadata="not JSON"),
        update(interceptions).values(metadata="[1]"),
        update(interceptions).values(metadata='{"a": ' * 5000),
        update(interceptions).values(metadata='{"a": "\\ud800"}'),
        update(interceptions).values(status="unheard of"),
        update(interceptions).values(ended_at=None),
        update(interceptions).values(ended_at=2**62),
        update(interceptions).values(ended_at=-(2**62)),
        update(facts).values(body="not JSON"),
        update(facts).values(body="[" * 100_000),
        update(facts).values(body='{"prompts": 5, "thoughts": [5, {}], "token_usages": [{"input_tokens": "x"}]}'),
        update(facts).values(body='{"token_usages": [{"extra": 5, "input_tokens": null}], "tool_usages": null}'),
        update(facts).values(body='{"tool_usages": [{"arguments": "\\ud800", "duration": "x", "tool": 5}]}'),
        update(facts).values(body='{"prompts": [{"text": {"a": 1}, "message_id": [], "unknown": 1}]}'),
    ],
    ids=range(14),
)
async def test_no_stored_row_breaks_a_list(url: str, damage: Any) -> None:
    """A damaged row is shown as far as it is readable: in lists, by its id, in exports and in sums."""
    async with SQLRecorder(url) as recorder:
        await record(recorder, interception(id="damaged"))
    await execute(url, damage)
    async with SQLRecorder(url) as recorder:
        await record(recorder, interception(id="whole"))
        page = await recorder.list(InterceptionQuery())
        assert {item.interception.id for item in page.items} == {"damaged", "whole"}
        for item in page.items:
            assert dump(record_json(item)) != "null"
        alone = await recorder.get("damaged")
        assert alone is not None
        assert alone.interception.model == "gpt-5"
        for form in ExportFormat:
            lines = b"".join([chunk async for chunk in export(recorder, format=form)])
            assert b"damaged" in lines
            assert b"whole" in lines
        assert (await recorder.usage(UsageQuery()))[0].calls == 2


async def test_a_moment_of_nonsense_breaks_no_list(tmp_path: Any) -> None:
    """SQLite stores values of a wrong type in any column; a listing still works."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'records.db'}"
    async with SQLRecorder(url) as recorder:
        await record(recorder, interception(id="damaged"))
    await execute(url, text("UPDATE aibridge_interceptions SET started_at = 'noon', upstream_status = 'ok', error = 5"))
    async with SQLRecorder(url) as recorder:
        page = await recorder.list(InterceptionQuery(limit=1))
        assert [item.interception.id for item in page.items] == ["damaged"]
        assert await recorder.get("damaged") is not None


async def test_what_a_dead_recorder_observed_may_be_unreadable(url: str) -> None:
    """Unreadable facts of a dead recorder leave the token counts unknown and do not stop the start."""
    async with SQLRecorder(url) as recorder:
        await recorder.start(begun := interception())
        await recorder.observe(begun.id, full_facts())
        await until(lambda: not recorder.pending)
        await execute(url, update(interceptions).values(recorder_id="dead"))
        await execute(url, update(facts).values(body='{"token_usages": [5, {"input_tokens": "x"}]}'))
        async with SQLRecorder(url) as second:
            found = await second.get(begun.id)
            assert found is not None
            assert found.ending is not None
            assert found.ending.status is Status.INTERRUPTED


async def test_objects_have_no_text_that_no_index_takes(url: str) -> None:
    """Provider object ids of any length are stored."""
    async with SQLRecorder(url) as recorder:
        await recorder.note(LONG, LONG, LONG, LONG)
        await until(lambda: not recorder.pending)
        assert recorder.stats.refused == 0
    assert len(await execute(url, select(objects.c.kind))) == 1
