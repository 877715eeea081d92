from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from fastapi_aibridge.recorder.cursor import encode_cursor, to_microseconds
from fastapi_aibridge.recorder.memory import MemoryRecorder
from fastapi_aibridge.recorder.recorder import InterceptionQuery, InvalidCursor
from fastapi_aibridge.recorder.sql import SQLRecorder
from tests.waiting import until

from .builders import NOON, at, ending, full_facts, interception

pytestmark = pytest.mark.anyio

AnyRecorder = MemoryRecorder | SQLRecorder


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
async def recorder(request: pytest.FixtureRequest, tmp_path: Any) -> AsyncIterator[AnyRecorder]:
    """An empty recorder of each kind."""
    if request.param == "memory":
        yield MemoryRecorder()
        return
    if request.param == "sqlite":
        url = f"sqlite+aiosqlite:///{tmp_path / 'records.db'}"
    else:
        url = await request.getfixturevalue("postgres").empty_database_async()
    async with SQLRecorder(url, retention=0) as sql:
        yield sql


async def ids(recorder: AnyRecorder, **query: Any) -> list[str]:
    return [item.interception.id for item in (await recorder.list(InterceptionQuery(**query))).items]


async def test_the_newest_come_first_with_their_facts(recorder: AnyRecorder) -> None:
    """A listing is ordered by start, not by the order of writing, and its items are complete."""
    begun = [interception(id=f"i{minute}", started_at=at(minute)) for minute in (2, 0, 1)]
    for each in begun:
        await recorder.start(each)
    await recorder.end("i1", ended := ending(), full_facts())
    await until(lambda: isinstance(recorder, MemoryRecorder) or not recorder.pending)
    page = await recorder.list(InterceptionQuery())
    assert [item.interception.id for item in page.items] == ["i2", "i1", "i0"]
    assert (page.items[1].facts, page.items[1].ending) == (full_facts(), ended)
    assert page.next_cursor is None


async def test_filters_narrow_the_listing(recorder: AnyRecorder) -> None:
    """Filters work alone and together; time bounds include the start and exclude the end."""
    await recorder.start(interception(id="a", initiator_id="bob", started_at=at(0)))
    await recorder.start(interception(id="b", provider="anthropic", model="claude", started_at=at(1)))
    await recorder.start(interception(id="c", session_id="s1", started_at=at(2)))
    await recorder.start(interception(id="d", initiator_id="bob", session_id="s1", started_at=at(3)))
    assert await ids(recorder, initiator_id="bob") == ["d", "a"]
    assert await ids(recorder, provider="anthropic") == ["b"]
    assert await ids(recorder, model="gpt-5") == ["d", "c", "a"]
    assert await ids(recorder, session_id="s1") == ["d", "c"]
    assert await ids(recorder, session_id="s1", initiator_id="bob") == ["d"]
    assert await ids(recorder, started_after=at(1), started_before=at(3)) == ["c", "b"]
    assert await ids(recorder, started_after=at(1).replace(tzinfo=None)) == ["d", "c", "b"]
    assert await ids(recorder, initiator_id="o'brien\0") == []


async def test_a_cursor_is_stable_while_others_are_recorded(recorder: AnyRecorder) -> None:
    """Following the cursor shows every record once and in order, in spite of concurrent writes."""
    there = [interception(started_at=at(number // 3)) for number in range(20)]
    for each in there:
        await recorder.start(each)
    expected = [each.id for each in sorted(there, key=lambda each: (each.started_at, each.id), reverse=True)]
    seen: list[str] = []
    cursor = None
    while True:
        page = await recorder.list(InterceptionQuery(limit=3, cursor=cursor))
        seen += [item.interception.id for item in page.items]
        await recorder.start(interception(started_at=at(100)))
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == expected


async def test_a_last_page_that_is_full_has_no_cursor(recorder: AnyRecorder) -> None:
    """A page has a cursor only if records follow it."""
    for minute in range(4):
        await recorder.start(interception(started_at=at(minute)))
    first = await recorder.list(InterceptionQuery(limit=2))
    assert first.next_cursor is not None
    assert (await recorder.list(InterceptionQuery(limit=2, cursor=first.next_cursor))).next_cursor is None


@pytest.mark.parametrize("cursor", ["", "x", "é", "%%%", "MTo", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OmE", "a" * 5000])
async def test_a_malformed_cursor_is_refused(recorder: AnyRecorder, cursor: str) -> None:
    """A cursor that was never issued raises `InvalidCursor`."""
    with pytest.raises(InvalidCursor):
        await recorder.list(InterceptionQuery(cursor=cursor))


async def test_a_cursor_outlives_its_record(recorder: AnyRecorder) -> None:
    """A cursor is valid although the record that it was made of is not there."""
    await recorder.start(interception(id="a", started_at=at(0)))
    assert await ids(recorder, cursor=encode_cursor(to_microseconds(at(1)), "gone")) == ["a"]
    assert await ids(recorder, cursor=encode_cursor(1, "gone")) == []


async def test_an_unknown_id_is_none(recorder: AnyRecorder) -> None:
    """An unknown id of any form gives None."""
    assert await recorder.get(str(uuid4())) is None
    assert await recorder.get("no\0thing\ud800") is None


async def test_memory_displaces_the_oldest() -> None:
    """The memory recorder keeps as many of the newest records as it is told."""
    recorder = MemoryRecorder(2)
    for number in range(3):
        await recorder.start(interception(id=f"i{number}", started_at=NOON + timedelta(minutes=number)))
    await recorder.end("i0", ending(), full_facts())
    assert await ids(recorder) == ["i2", "i1"]
    with pytest.raises(ValueError, match="max_items"):
        MemoryRecorder(0)
