from __future__ import annotations

import math
from datetime import datetime

import pytest

from fastapi_aibridge.recorder.jsonform import record_json
from fastapi_aibridge.recorder.memory import MemoryRecorder
from fastapi_aibridge.recorder.recorder import InterceptionStore, Recorder
from fastapi_aibridge.recorder.records import Facts, InterceptionRecord, Prompt, Status, Thought, ToolUsage
from fastapi_aibridge.recorder.sql import SQLRecorder
from fastapi_aibridge.recorder.usage import UsageStore
from tests.waiting import until

from .builders import ending, full_facts, interception, usage

pytestmark = pytest.mark.anyio


async def test_a_start_can_be_read_when_start_returns(url: str) -> None:
    """When `start` returns, the interception is in the database and is running."""
    async with SQLRecorder(url) as recorder:
        begun = interception(metadata={"team": "blue", "n": [1, None]}, session_id="s1", user_agent=None)
        await recorder.start(begun)
        assert await recorder.get(begun.id) == InterceptionRecord(begun)


async def test_agents_and_what_was_cut_are_read_back(url: str) -> None:
    """The agents, the author of a prompt, and the marks of truncation are read back."""
    begun = interception(agent_id="a2", parent_agent_id="a1", truncated=True)
    facts = Facts(
        prompts=[Prompt(message_id="m", text="<system-reminder>", source="agent", truncated=True)],
        tool_usages=[ToolUsage(message_id="m", call_id="c", tool="t", arguments='{"a', truncated=True)],
        thoughts=[Thought(source="thinking", text="Hm", truncated=True)],
    )
    async with SQLRecorder(url) as recorder:
        await recorder.start(begun)
        await recorder.end(begun.id, ended := ending(), facts)
    async with SQLRecorder(url) as recorder:
        assert await recorder.get(begun.id) == InterceptionRecord(begun, facts, ended)


async def test_an_end_and_its_facts_are_read_back_as_they_were_given(url: str) -> None:
    """Every member of the end and of the facts is read back unchanged."""
    begun, ended = interception(), ending(status=Status.FAILED, upstream_status=503, error="overloaded")
    async with SQLRecorder(url) as recorder:
        await recorder.start(begun)
        await recorder.end(begun.id, ended, full_facts())
    async with SQLRecorder(url) as recorder:
        assert await recorder.get(begun.id) == InterceptionRecord(begun, full_facts(), ended)


@pytest.mark.parametrize("filed", [False, True])
async def test_the_key_that_paid_in_the_end(url: str, filed: bool) -> None:
    """An end can change the key's hint, before and after the start is filed; an end without a hint keeps it."""
    changed, kept = interception(), interception()
    async with SQLRecorder(url) as recorder:
        for begun in (changed, kept):
            await recorder.start(begun)
        if filed:
            await recorder.get(changed.id)
        await recorder.end(changed.id, ending(credential_hint="sk-...5678"), Facts())
        await recorder.end(kept.id, ending(), Facts())
    async with SQLRecorder(url) as recorder:
        records = [await recorder.get(begun.id) for begun in (changed, kept)]
    assert [record and record.interception.credential_hint for record in records] == ["sk-...5678", "sk-...1234"]


async def test_rounds_are_added_up_in_their_order(url: str) -> None:
    """Facts of several rounds are read back in the order of observation."""
    begun = interception()
    async with SQLRecorder(url) as recorder:
        await recorder.start(begun)
        for number in range(3):
            await recorder.observe(begun.id, Facts(token_usages=[usage(number, message_id=f"m{number}")]))
        await recorder.end(begun.id, ending(), Facts(token_usages=[usage(3, message_id="m3")]))
    async with SQLRecorder(url) as recorder:
        record = await recorder.get(begun.id)
    assert record is not None
    assert [each.message_id for each in record.facts.token_usages] == ["m0", "m1", "m2", "m3"]


async def test_a_second_end_changes_nothing(url: str) -> None:
    """A second end, and an end without a start, are ignored."""
    begun = interception()
    async with SQLRecorder(url) as recorder:
        await recorder.start(begun)
        await recorder.end(begun.id, ending(), full_facts())
        await recorder.end(begun.id, ending(status=Status.FAILED), full_facts())
        await recorder.observe(begun.id, full_facts())
        await recorder.end("another", ending(), full_facts())
    async with SQLRecorder(url) as recorder:
        record = await recorder.get(begun.id)
        assert await recorder.get("another") is None
    assert record is not None
    assert record.ending is not None
    assert record.ending.status is Status.COMPLETED
    assert record.facts == full_facts()


async def test_text_that_databases_refuse_is_stored_as_nearly_as_possible(url: str) -> None:
    """NUL, lone surrogates, huge numbers and deep nesting are replaced, and everything around them is stored."""
    nested: object = "core"
    for _ in range(5000):
        nested = [nested]
    hostile = interception(model="gpt\0\ud800-5é", session_id="\0", metadata={"k": "\ud800", "n": 2**70})
    call = ToolUsage(message_id="m", call_id="c", tool="t", arguments={"n": 2**80, "nan": math.nan, "s": "\ud800\0"})
    facts = Facts(
        token_usages=[usage(2**70), usage(-5)],
        prompts=[Prompt(message_id="m", text="a\0b\ud800c")],
        tool_usages=[call],
    )
    async with SQLRecorder(url) as recorder:
        await recorder.start(hostile)
        await recorder.end(hostile.id, ending(error="\0\udfff", upstream_status=10**12), facts)
        deep = interception()
        await recorder.start(deep)
        deep_call = ToolUsage(message_id="m", call_id="c", tool="deep", arguments=nested)
        await recorder.end(deep.id, ending(), Facts(token_usages=[usage()], tool_usages=[deep_call]))
    async with SQLRecorder(url) as recorder:
        assert recorder.stats.refused == 0
        record = await recorder.get(hostile.id)
        deep_record = await recorder.get(deep.id)
    assert record is not None
    assert record.interception.model == "gpt\N{REPLACEMENT CHARACTER}?-5é"
    assert record.ending is not None
    assert record.ending.status is Status.COMPLETED
    assert record.ending.upstream_status is None
    assert record.facts.prompts[0].text.startswith("a")
    assert record.facts.tool_usages[0].tool == "t"
    assert deep_record is not None
    assert deep_record.facts.tool_usages[0].tool == "deep"
    assert deep_record.facts.token_usages == [usage()]


@pytest.mark.parametrize("kind", ["memory", "sql"])
async def test_without_content_capture_no_text_is_kept(kind: str, url: str) -> None:
    """Without content capture, texts are dropped; tool names and costs stay."""
    begun = interception()
    ended = ending(status=Status.FAILED, upstream_status=500, error="the secret answer")
    sql = SQLRecorder(url, capture_content=False)
    async with sql:
        recorder = MemoryRecorder(capture_content=False) if kind == "memory" else sql
        await recorder.start(begun)
        await recorder.observe(begun.id, full_facts())
        await recorder.end(begun.id, ended, full_facts())
        await until(lambda: not sql.pending)
        record = await recorder.get(begun.id)
    assert record is not None
    assert "secret" not in repr(record)
    assert record.ending is not None
    assert (record.ending.status, record.ending.upstream_status, record.ending.error) == (Status.FAILED, 500, None)
    assert len(record.facts.token_usages) == 2
    call = record.facts.tool_usages[0]
    assert (call.tool, call.call_id, call.server, call.duration, call.arguments) == (
        *("read_file", "c1", "files", 0.25),
        None,
    )
    assert call.error == ""
    assert record.facts.prompts == []
    assert record.facts.thoughts == []


async def test_the_recorders_have_the_protocols(url: str) -> None:
    """Both recorders implement the protocols for writing, reading and usage."""
    for recorder in (MemoryRecorder(), SQLRecorder(url)):
        assert isinstance(recorder, Recorder)
        assert isinstance(recorder, InterceptionStore)
        assert isinstance(recorder, UsageStore)


def test_the_json_form_has_the_documented_members() -> None:
    """The JSON form has its members in the documented order, and times in RFC 3339 with microseconds, in UTC."""
    moment = datetime.fromisoformat("2026-03-01T14:00:00.5+02:00")
    form = record_json(InterceptionRecord(interception(id="i1", started_at=moment), full_facts(), ending()))
    assert list(form) == [
        *("id", "initiator_id", "api_key_id", "provider", "provider_type", "route", "model"),
        *("upstream_model", "streaming", "client"),
        *("user_agent", "session_id", "agent_id", "parent_agent_id", "correlating_tool_call_id", "credential_kind"),
        *("credential_hint", "metadata", "groups", "started_at", "ended_at", "status", "upstream_status", "error"),
        *("truncated", "cost_usd", "cost_estimated"),
        *("token_usages", "prompts", "tool_usages", "thoughts"),
    ]
    assert form["started_at"] == "2026-03-01T12:00:00.500000Z"
    assert form["token_usages"] == [
        {
            "message_id": "m1",
            "input_tokens": 5,
            "output_tokens": 10,
            "cache_read_tokens": 15,
            "cache_write_tokens": 20,
            "extra": {"reasoning": 7},
            "partial": True,
            "service_tier": None,
            "cost_usd": None,
            "cost_estimated": False,
            "price": None,
        }
    ]
    assert form["tool_usages"][0]["arguments"] == {"path": "the secret path"}
    assert form["thoughts"] == [{"source": "thinking", "text": "the secret thought", "truncated": False}]
    assert form["prompts"] == [
        {"message_id": "m1", "text": "the secret prompt", "source": "user", "truncated": False},
    ]


def test_a_running_interception_has_no_end_in_its_json_form() -> None:
    """The end's members are null while an interception runs."""
    form = record_json(InterceptionRecord(interception()))
    assert (form["status"], form["ended_at"], form["upstream_status"], form["error"]) == ("running", None, None, None)
