from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from fastapi_aibridge.recorder import Facts, Interception, MemoryOwners, ObjectOwners, owners_of
from fastapi_aibridge.recorder.fanout import FanoutRecorder
from fastapi_aibridge.recorder.memory import MemoryRecorder
from fastapi_aibridge.recorder.null import NullRecorder
from fastapi_aibridge.recorder.records import ProviderObject
from fastapi_aibridge.recorder.sql import SQLRecorder
from tests.waiting import until

from .builders import NOON, ending, interception

pytestmark = pytest.mark.anyio


def made(*ids: str) -> Facts:
    return Facts(objects=[ProviderObject(kind="response", id=object_id) for object_id in ids])


async def record(recorder: Any, begun: Interception, *ids: str) -> None:
    await recorder.start(begun)
    await recorder.observe(begun.id, made(*ids[:1]))
    await recorder.end(begun.id, ending(), made(*ids[1:]))


async def test_what_an_interception_made_has_its_initiator_as_owner(url: str) -> None:
    """The owner is known at once in the process that recorded it, soon in others, and after a restart."""
    async with SQLRecorder(url) as recorder, SQLRecorder(url) as other:
        await record(recorder, interception(initiator_id="alice"), "resp_1", "resp_2")
        assert await recorder.owner("openai", "resp_1") == "alice"
        assert await recorder.owner("openai", "resp_2") == "alice"

        async def known() -> bool:
            return await other.owner("openai", "resp_2") == "alice"

        await until(known)
    async with SQLRecorder(url) as recorder:
        assert await recorder.owner("openai", "resp_1") == "alice"
        assert await recorder.owner("azure", "resp_1") is None
        assert await recorder.owner("openai", "resp_3") is None
        assert await recorder.owner("openai", "no\0thing\ud800" + "x" * 5000) is None


async def test_objects_are_noted_without_an_interception_too(url: str) -> None:
    """Objects of requests that are passed through are noted too; ids of any length and form stay distinct."""
    long = "x" * 3000
    async with SQLRecorder(url) as recorder:
        await recorder.note("openai", "file_1", "alice", "file")
        await recorder.note("openai", long + "1", "bob\0", "file\ud800" * 100)
        await recorder.note("p" * 3000, long + "2", "carol", "file")
        await recorder.note("openai", "file_2", "d" * 2000, "file")
    async with SQLRecorder(url) as recorder:
        assert recorder.stats.refused == 0
        assert await recorder.owner("openai", "file_1") == "alice"
        assert await recorder.owner("openai", long + "1") == "bob\N{REPLACEMENT CHARACTER}"
        assert await recorder.owner("openai", long + "2") is None
        assert await recorder.owner("p" * 3000, long + "2") == "carol"
        assert await recorder.owner("openai", "file_2") == "d" * 2000


@pytest.mark.parametrize("kind", ["memory", "owners", "fanout", "sql"])
async def test_the_first_owner_stays(kind: str, url: str) -> None:
    """A later note of the same object does not change its owner."""
    sql = SQLRecorder(url)
    kinds: dict[str, ObjectOwners] = {
        "memory": MemoryRecorder(),
        "owners": MemoryOwners(),
        "fanout": FanoutRecorder(NullRecorder()),
        "sql": sql,
    }
    owners = kinds[kind]
    async with sql:
        await owners.note("openai", "conv_1", "alice", "conversation")
        await owners.note("openai", "conv_1", "bob", "conversation")
        assert await owners.owner("openai", "conv_1") == "alice"
        async with SQLRecorder(url) as other:
            await sql.note("openai", "conv_2", "alice", "conversation")
            await until(lambda: not sql.pending)
            await other.note("openai", "conv_2", "bob", "conversation")
    async with SQLRecorder(url) as again:
        assert await again.owner("openai", "conv_2") == "alice"


async def test_what_a_process_remembers_is_bounded(url: str) -> None:
    """A process forgets the oldest owners beyond its bound; a database still finds them."""
    memory = MemoryOwners(10)
    for number in range(100):
        await memory.note("openai", f"r{number}", "alice", "response")
    assert memory.count == 10
    assert await memory.owner("openai", "r99") == "alice"
    assert await memory.owner("openai", "r0") is None
    async with SQLRecorder(url) as recorder:
        recorder._owners = MemoryOwners(10)
        for number in range(100):
            await recorder.note("openai", f"r{number}", "alice", "response")
        await until(lambda: not recorder.pending)
        assert await recorder.owner("openai", "r0") == "alice"
        assert recorder._owners.count == 10


async def test_recorders_that_keep_no_owners_get_a_memory() -> None:
    """Recorders without owners get a memory of them, and those with owners are asked, even if they are wrapped."""
    assert isinstance(owners_of(NullRecorder()), MemoryOwners)
    memory = MemoryRecorder()
    assert owners_of(memory) is memory

    async def make() -> MemoryRecorder:
        return memory

    async with FanoutRecorder(NullRecorder(), make) as fanout:
        await record(fanout, interception(initiator_id="alice"), "resp_1")
        assert await owners_of(fanout).owner("openai", "resp_1") == "alice"
        assert await memory.owner("openai", "resp_1") == "alice"


async def test_owners_are_forgotten_with_the_records(url: str) -> None:
    """The retention of the records holds for owners too."""
    now = [NOON]
    async with SQLRecorder(url, retention=3600, clock=lambda: now[0]) as recorder:
        await recorder.note("openai", "old", "alice", "response")
        now[0] += timedelta(hours=2)
        await recorder.note("openai", "new", "alice", "response")
        await until(lambda: not recorder.pending)
        await recorder.run_upkeep()
    async with SQLRecorder(url) as recorder:
        assert await recorder.owner("openai", "old") is None
        assert await recorder.owner("openai", "new") == "alice"
