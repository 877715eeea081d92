from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from fastapi_aibridge.recorder.memory import MemoryRecorder
from fastapi_aibridge.recorder.records import Facts
from fastapi_aibridge.recorder.sql import SQLRecorder
from fastapi_aibridge.recorder.usage import UsageBy, UsageQuery, UsageRow, UsageStore, usage_json
from tests.waiting import until

from .builders import ending, interception, usage

pytestmark = pytest.mark.anyio

FIRST = datetime(2026, 3, 1, 22, tzinfo=UTC)
LATER = FIRST + timedelta(days=10)


def row(calls: int, tokens: int, *, unpriced: int = 0, **keys: Any) -> UsageRow:
    """A row of usage at one dollar for each token, except for those of a model without a price."""
    priced = tokens - unpriced
    return UsageRow(
        **keys,
        calls=calls,
        input_tokens=tokens,
        output_tokens=tokens * 2,
        cache_read_tokens=tokens * 3,
        cache_write_tokens=tokens * 4,
        cost=priced * 1_000_000 if priced else None,
    )


async def record(recorder: SQLRecorder | MemoryRecorder, tokens: int, hours: float = 0, **given: Any) -> None:
    begun = interception(started_at=FIRST + timedelta(hours=hours), **given)
    await recorder.start(begun)
    if tokens > 1:
        await recorder.observe(begun.id, Facts(token_usages=[usage(tokens - 1)]))
    cost = None if begun.model == "claude" else tokens * 1_000_000
    await recorder.end(begun.id, ending(cost=cost), Facts(token_usages=[usage(1)]))


async def record_all(recorder: SQLRecorder | MemoryRecorder) -> None:
    await record(recorder, 1, groups=("staff",))
    await record(recorder, 2, 1, initiator_id="bob", model="gpt-5-mini", agent_id="a1")
    await record(recorder, 4, 3, initiator_id="bob", client="Zed", session_id="s1", groups=("staff", "Ünits", "staff"))
    await record(recorder, 8, 4, provider="anthropic", model="claude")
    await recorder.start(interception(started_at=FIRST + timedelta(hours=50)))
    await until(lambda: isinstance(recorder, MemoryRecorder) or not recorder.pending)


async def check(store: UsageStore) -> None:
    async def ask(*by: UsageBy, **given: Any) -> list[UsageRow]:
        return await store.usage(UsageQuery(by=by, **given))

    assert await ask() == [row(5, 15, unpriced=8)]
    assert await ask(initiator_id="nobody") == [row(0, 0)]
    assert await ask(UsageBy.MODEL, initiator_id="nobody") == []
    assert await ask(UsageBy.DAY) == [
        row(2, 3, day=date(2026, 3, 1)),
        row(2, 12, day=date(2026, 3, 2), unpriced=8),
        row(1, 0, day=date(2026, 3, 4)),
    ]
    assert await ask(UsageBy.MODEL) == [
        row(1, 8, model="claude", unpriced=8),
        row(3, 5, model="gpt-5"),
        row(1, 2, model="gpt-5-mini"),
    ]
    assert await ask(UsageBy.PROVIDER) == [
        row(1, 8, provider="anthropic", unpriced=8),
        row(4, 7, provider="openai"),
    ]
    assert await ask(UsageBy.CLIENT, UsageBy.INITIATOR) == [
        row(3, 9, client="Codex", initiator_id="alice", unpriced=8),
        row(1, 2, client="Codex", initiator_id="bob"),
        row(1, 4, client="Zed", initiator_id="bob"),
    ]
    assert await ask(UsageBy.DAY, initiator_id="bob") == [
        row(1, 2, day=date(2026, 3, 1)),
        row(1, 4, day=date(2026, 3, 2)),
    ]
    assert await ask(session_id="s1") == [row(1, 4)]
    assert await ask(started_after=FIRST + timedelta(hours=1)) == [row(4, 14, unpriced=8)]
    assert await ask(started_before=FIRST + timedelta(hours=4)) == [row(3, 7)]
    assert await ask(started_after=FIRST + timedelta(hours=1), started_before=FIRST + timedelta(hours=4)) == [row(2, 6)]
    assert await ask(model="gpt-5", provider="openai") == [row(3, 5)]
    assert await ask(UsageBy.SESSION, UsageBy.DAY, started_before=FIRST + timedelta(hours=4)) == [
        row(2, 3, session_id=None, day=date(2026, 3, 1)),
        row(1, 4, session_id="s1", day=date(2026, 3, 2)),
    ]
    assert await ask(UsageBy.AGENT, initiator_id="bob") == [row(1, 4, agent_id=None), row(1, 2, agent_id="a1")]
    # A call of two groups counts in both.
    assert await ask(UsageBy.GROUP, UsageBy.MODEL) == [
        row(1, 8, group=None, model="claude", unpriced=8),
        row(1, 0, group=None, model="gpt-5"),
        row(1, 2, group=None, model="gpt-5-mini"),
        row(2, 5, group="staff", model="gpt-5"),
        row(1, 4, group="Ünits", model="gpt-5"),
    ]


async def test_memory_adds_up() -> None:
    """The memory recorder returns the expected sums."""
    recorder = MemoryRecorder()
    await record_all(recorder)
    await check(recorder)


async def test_sums_are_the_same_before_and_after_days_are_added_up(url: str) -> None:
    """Every grouping and filter gives the same sums from interceptions, from daily sums, and from both."""
    async with SQLRecorder(url, retention=0, clock=lambda: LATER) as recorder:
        await record_all(recorder)
        await check(recorder)
        for _ in range(3):
            await recorder.run_upkeep()
            await check(recorder)


async def test_what_is_written_late_into_a_day_that_was_added_up_counts(url: str) -> None:
    """A late start and a late end invalidate the sums of their day, and upkeep adds the day up again."""
    late = interception(started_at=FIRST)
    async with SQLRecorder(url, retention=0, clock=lambda: LATER) as recorder:
        await record(recorder, 1)
        await recorder.run_upkeep()
        await recorder.run_upkeep()
        await recorder.start(late)
        assert await recorder.usage(UsageQuery()) == [row(2, 1)]  # the late one is still running
        for _ in range(2):
            await recorder.run_upkeep()
        assert await recorder.usage(UsageQuery()) == [row(2, 1)]
        await recorder.end(late.id, ending(cost=6_000_000), Facts(token_usages=[usage(6)]))
    async with SQLRecorder(url, retention=0, clock=lambda: LATER) as recorder:
        assert await recorder.usage(UsageQuery()) == [row(2, 7)]
        await recorder.run_upkeep()
        await recorder.run_upkeep()
        assert await recorder.usage(UsageQuery(by=(UsageBy.DAY,))) == [row(2, 7, day=date(2026, 3, 1))]


def test_the_json_form_of_a_sum_has_what_was_asked_for() -> None:
    """The grouping members come first, in the query's order."""
    query = UsageQuery(by=(UsageBy.MODEL, UsageBy.DAY))
    assert usage_json(query, row(1, 2, day=date(2026, 3, 1), model="gpt-5")) == {
        "model": "gpt-5",
        "day": "2026-03-01",
        "calls": 1,
        "input_tokens": 2,
        "output_tokens": 4,
        "cache_read_tokens": 6,
        "cache_write_tokens": 8,
        "cost_usd": 2.0,
    }
