"""Erases one initiator."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from fastapi_aibridge.cluster.audit import read_page
from fastapi_aibridge.cluster.erasure import erase
from fastapi_aibridge.recorder.clock import NOW
from fastapi_aibridge.recorder.columns import SET_ASIDE_COLUMNS
from fastapi_aibridge.recorder.committer import set_aside_row
from fastapi_aibridge.recorder.erasure import carry_out
from fastapi_aibridge.recorder.recorder import InterceptionQuery
from fastapi_aibridge.recorder.records import Status
from fastapi_aibridge.recorder.rows import filed_row, inbox_row, start_row
from fastapi_aibridge.recorder.schema import budget_counters, erasures, metadata, set_aside, usage_daily
from fastapi_aibridge.recorder.sql import SQLRecorder
from fastapi_aibridge.recorder.usage import UsageQuery

from .builders import ending, full_facts, interception

pytestmark = pytest.mark.anyio


@pytest.fixture
async def recorder(url: str) -> AsyncIterator[SQLRecorder]:
    async with SQLRecorder(url) as opened:
        yield opened


async def recorded(recorder: SQLRecorder, initiator_id: str, *, ended: bool = True, **given: Any) -> str:
    begun = interception(initiator_id=initiator_id, **given)
    await recorder.start(begun)
    if ended:
        await recorder.end(begun.id, ending(status=Status.FAILED, error="the secret error"), full_facts())
    return begun.id


async def in_place(recorder: SQLRecorder) -> None:
    """Wait until all records are filed in their tables."""
    await recorder.list(InterceptionQuery())


async def dump(recorder: SQLRecorder) -> str:
    """All rows of the database as text, except those of the audit and of the erasure requests."""
    texts = []
    async with recorder.database.reading() as connection:
        for table in metadata.sorted_tables:
            if table.name not in ("aibridge_audit", "aibridge_erasures"):
                texts += [repr(tuple(row)) for row in await connection.execute(select(table))]
    return "\n".join(texts)


async def test_content_goes_and_sums_stay(recorder: SQLRecorder) -> None:
    """The content of the named initiator is erased and their usage stays; other initiators are unaffected."""
    mine, other = await recorded(recorder, "alice"), await recorded(recorder, "bob")
    before = await recorder.get(other)
    assert await erase(recorder.database, "alice", everything=False, actor="admin") == 1
    record = await recorder.get(mine)
    assert record is not None
    assert record.ending is not None
    assert record.ending.error is None
    assert not record.facts.prompts
    assert not record.facts.thoughts
    (call,) = record.facts.tool_usages
    assert (call.tool, call.arguments, call.error) == ("read_file", None, "")
    assert record.facts.token_usages == full_facts().token_usages
    assert await recorder.get(other) == before
    (row,) = await recorder.usage(UsageQuery(initiator_id="alice"))
    assert row.calls == 1


async def test_all_goes(recorder: SQLRecorder) -> None:
    """No table mentions the initiator afterwards, including the daily sums and the rows that were set aside."""
    await recorded(recorder, "alice-who-goes")
    kept = await recorded(recorder, "bob")
    await recorder.note("openai", "resp_1", "alice-who-goes", "response")
    row = start_row(interception(initiator_id="alice-who-goes"), "recorder")
    bobs = start_row(interception(initiator_id="bob"), "recorder")
    aside = [
        set_aside_row("recorder", "filed", "Error", filed_row(row, None)),
        set_aside_row("recorder", "inbox", "Error", inbox_row("recorder", 1, row)[2]),
        set_aside_row("recorder", "filed", "Error", filed_row(bobs, None)),
    ]
    async with recorder.database.writing() as connection:
        for each in aside:
            await connection.execute(insert(set_aside).values(dict(zip(SET_ASIDE_COLUMNS, each, strict=True))))
        sums = {"provider": "openai", "model": "gpt-5", "client": "Codex", "calls": 1}
        tokens = dict.fromkeys(("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"), 1)
        await connection.execute(
            insert(usage_daily).values(day=20_000, initiator_id="alice-who-goes", **sums, **tokens)
        )
    await in_place(recorder)
    assert "alice-who-goes" in await dump(recorder)
    assert await erase(recorder.database, "alice-who-goes", everything=True, actor="admin") == 1
    left = await dump(recorder)
    assert "alice-who-goes" not in left
    assert "bob" in left
    assert await recorder.get(kept) is not None


async def test_facts_put_aside_go_with_their_interception(recorder: SQLRecorder) -> None:
    mine, other = await recorded(recorder, "alice"), await recorded(recorder, "bob")
    await in_place(recorder)
    async with recorder.database.writing() as connection:
        for one in (mine, other):
            row = set_aside_row("recorder", "facts", "Error", (one, 1, f"what was said in {one}"))
            await connection.execute(insert(set_aside).values(dict(zip(SET_ASIDE_COLUMNS, row, strict=True))))
    await erase(recorder.database, "alice", everything=False, actor="admin")
    left = await dump(recorder)
    assert f"what was said in {mine}" not in left
    assert f"what was said in {other}" in left


async def test_what_a_provider_keeps_stays_nobody_elses(recorder: SQLRecorder, url: str) -> None:
    """The provider's objects of an erased initiator keep an unknown owner, so that others still get 404."""
    await recorder.note("openai", "resp_1", "alice", "response")
    await in_place(recorder)
    await erase(recorder.database, "alice", everything=True, actor="admin")
    async with SQLRecorder(url) as another:  # a recorder without a cache of owners
        owner = await another.owner("openai", "resp_1")
    assert owner is not None
    assert re.fullmatch(r"erased-[0-9a-f-]{36}", owner)


async def test_what_runs_is_erased_once_it_has_ended(recorder: SQLRecorder) -> None:
    """A running interception is erased by the first recorder that looks after its end; later interceptions stay."""
    running = await recorded(recorder, "alice", ended=False)
    ended = await recorded(recorder, "alice")
    await in_place(recorder)
    assert await erase(recorder.database, "alice", everything=True, actor="admin") == 1
    assert await recorder.get(ended) is None
    assert await recorder.get(running) is not None
    later = await recorded(recorder, "alice", started_at=datetime.now(UTC) + timedelta(seconds=5))
    await recorder.end(running, ending(), full_facts())
    await in_place(recorder)
    assert await carry_out(recorder.database) == 1
    assert await recorder.get(running) is None
    assert await recorder.get(later) is not None


async def test_what_is_put_aside_later_goes_with_what_ran(recorder: SQLRecorder) -> None:
    """A row of a running interception that was set aside after the erasure is erased with the interception."""
    await recorded(recorder, "alice")
    await in_place(recorder)
    running = await recorded(recorder, "alice", ended=False)
    await in_place(recorder)
    await erase(recorder.database, "alice", everything=True, actor="admin")
    row = set_aside_row("recorder", "facts", "Error", (running, 1, "what was said"))
    async with recorder.database.writing() as connection:
        await connection.execute(insert(set_aside).values(dict(zip(SET_ASIDE_COLUMNS, row, strict=True))))
    await recorder.end(running, ending(), full_facts())
    await in_place(recorder)
    await carry_out(recorder.database)
    assert "what was said" not in await dump(recorder)


async def test_the_request_is_forgotten_when_all_is_done(recorder: SQLRecorder) -> None:
    """An erasure request is kept for a while, because a start may still be waiting to be filed."""

    async def asked() -> int:
        async with recorder.database.reading() as connection:
            return len((await connection.execute(select(erasures))).all())

    await recorded(recorder, "alice")
    await erase(recorder.database, "alice", everything=False, actor="admin")
    assert await asked() == 1
    hour = 3600 * 1_000_000
    async with recorder.database.writing() as connection:
        now = NOW
        await connection.execute(update(erasures).values(asked_at=now - hour))
    await carry_out(recorder.database)
    assert await asked() == 0


async def test_many_are_erased_in_short_transactions(recorder: SQLRecorder) -> None:
    for _ in range(120):
        await recorded(recorder, "alice")
    await in_place(recorder)
    assert await erase(recorder.database, "alice", everything=True, actor="admin") == 120
    assert (await recorder.list(InterceptionQuery())).items == []


async def test_the_audit_says_who_erased_whom(recorder: SQLRecorder) -> None:
    await erase(recorder.database, "alice", everything=True, actor="carol")
    await erase(recorder.database, "alice", everything=False, actor="carol")
    async with recorder.database.reading() as connection:
        page = await read_page(connection)
    assert [(entry.actor, entry.action, entry.object) for entry in page.items] == [
        ("carol", "initiator.erase_content", "initiator/alice"),
        ("carol", "initiator.erase", "initiator/alice"),
    ]


async def test_what_was_spent_long_ago_goes(recorder: SQLRecorder) -> None:
    """An erasure deletes the initiator's old budget counters, but not current ones, which would refund a budget."""
    now = int(datetime.now(UTC).timestamp() * 1_000_000)
    moments = {"old": now - 40 * 86400 * 1_000_000, "new": now}
    async with recorder.database.writing() as connection:
        for scope in ("initiator", "group"):
            for started_at in moments.values():
                values = {"scope": scope, "subject": "alice", "period": "month", "started_at": started_at}
                await connection.execute(insert(budget_counters).values(**values, spent=1, reserved=0))
    await erase(recorder.database, "alice", everything=True, actor="admin")
    async with recorder.database.reading() as connection:
        left = {(row.scope, row.started_at) for row in await connection.execute(select(budget_counters))}
    assert left == {("initiator", moments["new"]), ("group", moments["old"]), ("group", moments["new"])}


def test_each_table_that_names_initiators_is_known() -> None:
    """Every table that names initiators is listed here, so that a new one is not forgotten in the erasure."""
    import_module("fastapi_aibridge.cluster.client_keys")
    named = {table.name for table in metadata.sorted_tables if {"initiator_id", "subject"} & set(table.c.keys())}
    # Keys are revoked, not erased: the audit and the records of others may name them.
    assert named - {"aibridge_client_keys"} == {
        "aibridge_budget_counters",
        "aibridge_erasures",
        "aibridge_interceptions",
        "aibridge_objects",
        "aibridge_usage_daily",
    }
