from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import func, select

from fastapi_aibridge.recorder.jsonform import record_json
from fastapi_aibridge.recorder.memory import MemoryRecorder
from fastapi_aibridge.recorder.recorder import HEAVIEST_PAGE, InterceptionQuery
from fastapi_aibridge.recorder.records import Facts, Prompt, Thought, ToolUsage
from fastapi_aibridge.recorder.schema import facts as facts_table
from fastapi_aibridge.recorder.sql import SQLRecorder
from fastapi_aibridge.recorder.text import dump

from .builders import at, ending, interception, usage
from .test_crash import execute

pytestmark = pytest.mark.anyio


def large(size: int) -> Facts:
    """Facts with a text of this size in each member that may have one."""
    return Facts(
        prompts=[Prompt(message_id="m", text="é" * size)],
        tool_usages=[
            ToolUsage(message_id="m", call_id="c", tool="t" * size, arguments={"a": "x" * size}, error="y" * size)
        ],
        thoughts=[Thought(source="thinking", text="z" * size)],
    )


@pytest.mark.parametrize("kind", ["memory", "sql"])
async def test_text_has_a_cap_for_each_member_and_for_all_together(kind: str, url: str) -> None:
    """Texts beyond the cap of a member or of the interception are cut and marked; tokens and calls stay."""
    sql = SQLRecorder(url, max_text=1000)
    async with sql:
        recorder = MemoryRecorder(max_text=1000) if kind == "memory" else sql
        await recorder.start(begun := interception())
        for _ in range(3):
            await recorder.observe(begun.id, large(900))
        await recorder.end(begun.id, ending(), Facts(token_usages=[usage(3)]))
        record = await recorder.get(begun.id)
    assert record is not None
    facts = record.facts
    texts = [prompt.text for prompt in facts.prompts] + [thought.text for thought in facts.thoughts]
    texts += [str(one.arguments or "") + (one.error or "") for one in facts.tool_usages]
    assert sum(len(text.encode()) for text in texts) <= 1000
    assert facts.prompts[0].text == "é" * 500
    assert [one.truncated for one in facts.prompts] == [True] * 3
    assert [one.truncated for one in facts.tool_usages] == [True] * 3
    assert [one.truncated for one in facts.thoughts] == [True] * 3
    assert facts.token_usages == [usage(3)]


@pytest.mark.parametrize("kind", ["memory", "sql"])
async def test_the_number_of_entries_has_a_bound(kind: str, url: str) -> None:
    """Entries beyond the bound are left out and the interception is marked as truncated; tokens are still added up."""
    sql = SQLRecorder(url)
    async with sql:
        recorder = MemoryRecorder() if kind == "memory" else sql
        await recorder.start(begun := interception())
        for _ in range(5):
            calls = [ToolUsage(message_id="m", call_id="c", tool="t", arguments={}) for _ in range(1000)]
            await recorder.observe(begun.id, Facts(tool_usages=calls))
        await recorder.end(begun.id, ending(), Facts())
        record = await recorder.get(begun.id)
    assert record is not None
    assert len(record.facts.tool_usages) == 1000
    assert record.interception.truncated


async def test_what_waits_is_bounded_before_it_waits(url: str) -> None:
    """Large facts are cut before they are queued."""
    async with SQLRecorder(url, max_text=10_000) as recorder:
        begun = [interception() for _ in range(20)]
        for each in begun:
            await recorder.start(each)
            await recorder.observe(each.id, large(2_000_000))
        assert recorder._writer is not None
        assert recorder._writer._queue.weight < 20 * 30_000
    (size,) = (await execute(url, select(func.sum(func.length(facts_table.c.body)))))[0]
    assert size < 20 * 20_000


@pytest.mark.parametrize("kind", ["memory", "sql"])
async def test_a_page_is_bounded_in_bytes(kind: str, url: str) -> None:
    """Large records make short pages; following the cursor shows all of them."""
    sql = SQLRecorder(url, retention=0)
    async with sql:
        recorder: Any = MemoryRecorder() if kind == "memory" else sql
        for minute in range(12):
            await recorder.start(begun := interception(id=f"i{minute:02}", started_at=at(minute)))
            await recorder.end(begun.id, ending(), Facts(prompts=[Prompt(message_id="m", text="x" * 900_000)]))
        seen: list[str] = []
        cursor = None
        while True:
            page = await recorder.list(InterceptionQuery(limit=100, cursor=cursor))
            assert sum(len(dump(record_json(item))) for item in page.items) < HEAVIEST_PAGE + 1_000_000
            seen += [item.interception.id for item in page.items]
            cursor = page.next_cursor
            if cursor is None:
                break
    assert seen == [f"i{minute:02}" for minute in reversed(range(12))]
