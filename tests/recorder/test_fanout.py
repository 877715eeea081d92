from __future__ import annotations

import asyncio
from typing import Self

import pytest

from fastapi_aibridge.errors import ConfigurationError
from fastapi_aibridge.recorder.fanout import FanoutRecorder, LazyRecorder
from fastapi_aibridge.recorder.memory import MemoryRecorder
from fastapi_aibridge.recorder.recorder import InterceptionQuery, InterceptionStore, Recorder
from fastapi_aibridge.recorder.records import Ending, Facts, Interception, Status
from fastapi_aibridge.recorder.sql import SQLRecorder
from fastapi_aibridge.recorder.usage import UsageQuery
from tests.waiting import until

from .builders import ending, full_facts, interception

pytestmark = pytest.mark.anyio


class Failing:
    """A recorder whose reads and writes all fail."""

    async def start(self, interception: Interception) -> None:
        raise OSError("away")

    async def observe(self, interception_id: str, facts: Facts) -> None:
        raise OSError("away")

    async def end(self, interception_id: str, ending: Ending, facts: Facts) -> None:
        raise OSError("away")


class Entered(MemoryRecorder):
    """A recorder that counts how often it is entered and left."""

    def __init__(self) -> None:
        super().__init__()
        self.visits: list[str] = []

    async def __aenter__(self) -> Self:
        self.visits.append("in")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.visits.append("out")


async def test_each_record_goes_to_all_of_them(url: str) -> None:
    """Starts, observations and ends reach every recorder; the database is opened and closed with the fan-out."""
    memory, begun = MemoryRecorder(), interception()
    async with FanoutRecorder(memory, SQLRecorder(url)) as recorder:
        assert isinstance(recorder, Recorder)
        assert isinstance(recorder, InterceptionStore)
        await recorder.start(begun)
        await recorder.observe(begun.id, full_facts())
        await recorder.end(begun.id, ending(), full_facts())
        assert (await recorder.usage(UsageQuery()))[0].calls == 1
        assert (await recorder.list(InterceptionQuery())).items == [await recorder.get(begun.id)]
    async with SQLRecorder(url) as sql:
        stored, held = await sql.get(begun.id), await memory.get(begun.id)
        assert stored is not None
        assert held is not None
        assert stored.facts == held.facts


async def test_without_content_capture_none_of_them_is_given_text() -> None:
    """Content capture is off for the app's own recorders too."""
    memory, begun = MemoryRecorder(), interception()
    recorder = FanoutRecorder(memory, capture_content=False)
    await recorder.start(begun)
    await recorder.observe(begun.id, full_facts())
    await recorder.end(begun.id, ending(error="the secret answer"), full_facts())
    record = await memory.get(begun.id)
    assert record is not None
    assert "secret" not in repr(record)
    assert len(record.facts.tool_usages) == 2


async def test_a_start_that_one_refuses_is_ended_in_the_others() -> None:
    """If one recorder refuses a start, the others end it, because the request is refused."""
    memory, begun = MemoryRecorder(), interception()
    recorder = FanoutRecorder(memory, Failing())
    with pytest.raises(OSError, match="away"):
        await recorder.start(begun)
    record = await memory.get(begun.id)
    assert record is not None
    assert record.ending is not None
    assert record.ending.status is Status.FAILED


async def test_an_end_reaches_all_though_one_fails() -> None:
    """An end reaches all recorders even if one fails; its error is raised afterwards."""
    memory, begun = MemoryRecorder(), interception()
    await memory.start(begun)
    with pytest.raises(OSError, match="away"):
        await FanoutRecorder(Failing(), memory).end(begun.id, ending(), Facts())
    record = await memory.get(begun.id)
    assert record is not None
    assert record.ending is not None


async def test_a_cancelled_start_is_ended_in_those_that_have_it() -> None:
    """A start that is cancelled while one recorder still works is ended in the recorders that have it."""
    memory, begun = MemoryRecorder(), interception()

    class Slow(Failing):
        async def start(self, interception: Interception) -> None:
            await asyncio.Event().wait()

    start = asyncio.create_task(FanoutRecorder(memory, Slow()).start(begun))

    async def arrived() -> bool:
        return await memory.get(begun.id) is not None

    await until(arrived)
    start.cancel()
    await asyncio.wait([start])
    assert start.cancelled()
    record = await memory.get(begun.id)
    assert record is not None
    assert record.ending is not None
    assert record.ending.status is Status.CANCELLED


async def test_a_factory_is_asked_once_at_the_first_use() -> None:
    """A factory is called once, at the first use; its recorder is shared, entered and left."""
    made: list[Entered] = []

    async def make() -> Recorder:
        await asyncio.sleep(0)
        made.append(Entered())
        return made[-1]

    async with FanoutRecorder(make) as recorder:
        assert made == []
        await asyncio.gather(*(recorder.start(interception()) for _ in range(5)))
        assert len(made) == 1
        assert len((await recorder.list(InterceptionQuery())).items) == 5
        assert made[0].visits == ["in"]
    assert made[0].visits == ["in", "out"]


async def test_a_factory_that_fails_is_asked_again() -> None:
    """A factory's error is raised for that request only; the next request calls the factory again."""
    attempts = 0

    async def make() -> Recorder:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise OSError("not yet")
        return MemoryRecorder()

    recorder = LazyRecorder(make)
    with pytest.raises(OSError, match="not yet"):
        await recorder.start(interception())
    await recorder.start(interception())
    assert attempts == 2


async def test_a_factory_outlives_the_first_who_asked() -> None:
    """If the first caller is cancelled while the recorder is made, the other callers still get it."""
    go = asyncio.Event()

    async def make() -> Recorder:
        await go.wait()
        return MemoryRecorder()

    recorder = LazyRecorder(make)
    first, second = (asyncio.create_task(recorder.start(interception())) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    go.set()
    await second


async def test_reading_without_a_store_names_the_cure() -> None:
    """Reading from a fan-out without a recorder that can read raises an error that says why."""
    with pytest.raises(ConfigurationError, match="none of the recorders"):
        await FanoutRecorder(Failing()).get("x")
    with pytest.raises(ConfigurationError, match="at least one"):
        FanoutRecorder()
