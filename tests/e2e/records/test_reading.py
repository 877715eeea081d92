"""Records over HTTP: pages, filters, single records, sums and invalid requests."""

from __future__ import annotations

import itertools
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fastapi_aibridge.recorder.records import Facts, Status
from fastapi_aibridge.recorder.sql import SQLRecorder
from fastapi_aibridge.testing import Reply, ToolCall
from tests.recorder.builders import ending, full_facts, interception, usage

from .serving import CHAT, MESSAGES, RESPONSES, Gateway, gateway

pytestmark = pytest.mark.anyio

FIRST = datetime(2026, 3, 1, 22, tzinfo=UTC)
FILTERS: list[dict[str, Any]] = [
    {},
    {"initiator_id": "bob"},
    {"provider": "anthropic"},
    {"model": "gpt-5"},
    {"session_id": "s2"},
    {"started_after": "2026-03-02T03:00:00Z"},
    {"started_before": "2026-03-02T03:00:00Z"},
    {"started_after": "2026-03-01T23:10:00Z", "started_before": "2026-03-02T05:00:00+02:00"},
    {"initiator_id": "bob", "model": "claude", "started_after": "2026-03-01T23:10:00Z"},
    {"initiator_id": "nobody"},
    {"model": "' OR 1=1 --"},
]
TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")


async def fill(url: str, count: int = 60) -> None:
    """Record interceptions of all kinds, ten minutes apart and over midnight; some fail, two of ten have no end."""
    async with SQLRecorder(url, retention=0) as recorder:
        for number in range(count):
            model, provider = [("gpt-5", "openai"), ("gpt-5-mini", "openai"), ("claude", "anthropic")][number % 3]
            begun = interception(
                initiator_id="alice" if number % 4 else "bob",
                provider=provider,
                model=model,
                client="Codex" if number % 5 else "Zed",
                session_id=f"s{number % 7}" if number % 2 else None,
                started_at=FIRST + timedelta(minutes=10 * number),
            )
            await recorder.start(begun)
            await recorder.observe(begun.id, Facts(token_usages=[usage(number)]))
            if number % 10 < 8:
                status = Status.FAILED if number % 6 == 1 else Status.COMPLETED
                await recorder.end(begun.id, ending(status=status), full_facts())


def matches(record: dict[str, Any], filters: dict[str, Any]) -> bool:
    started = datetime.fromisoformat(record["started_at"])
    return (
        all(record[name] == value for name, value in filters.items() if not name.startswith("started"))
        and ("started_after" not in filters or started >= datetime.fromisoformat(filters["started_after"]))
        and ("started_before" not in filters or started < datetime.fromisoformat(filters["started_before"]))
    )


async def test_filters_pages_and_one_by_id(url: str) -> None:
    """Filters return the matching records, newest first and page by page; a record read by its id is the same."""
    await fill(url)
    async with gateway(url) as gate:
        everything = await gate.listing()
        assert len(everything) == 60
        assert [one["started_at"] for one in everything] == sorted(one["started_at"] for one in everything)[::-1]
        assert Counter(one["status"] for one in everything) == {"completed": 40, "failed": 8, "interrupted": 12}
        for filters in FILTERS:
            expected = [one for one in everything if matches(one, filters)]
            assert await gate.listing(limit=7, **filters) == expected, filters
        for one in everything[::10]:
            assert await gate.json(f"/interceptions/{one['id']}") == one
        for unknown in ("none", "%00", "a%2Fb", "x" * 5000, "é"):
            answer = await gate.read(f"/interceptions/{unknown}")
            assert answer.status_code == 404
        assert (await gate.read("/interceptions/none")).json() == {"detail": "there is no such interception"}


async def test_a_cursor_is_stable_while_requests_come_in(url: str) -> None:
    """Paging returns the records that were there with the first page, each once, whatever is recorded meanwhile."""
    await fill(url, 40)
    async with gateway(url) as gate:
        before = [one["id"] for one in await gate.listing()]
        seen: list[str] = []
        cursor = None
        while True:
            page = await gate.json("/interceptions", limit=6, cursor=cursor)
            seen += [one["id"] for one in page["items"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
            assert (await gate.ask(stream=len(seen) % 4 == 0)).status_code == 200
        assert seen == before
        assert len(await gate.listing()) == 40 + 6


async def test_sums_agree_with_the_listing(url: str) -> None:
    """The sums of calls and tokens by any of the groups are those of the listed interceptions."""
    await fill(url)
    async with gateway(url) as gate:
        for filters in FILTERS[:8]:
            await check_sums(gate, filters)


async def check_sums(gate: Gateway, filters: dict[str, Any]) -> None:
    records = await gate.listing(**filters)
    names = ("day", "initiator_id", "provider", "model", "client")
    pairs = () if filters else itertools.combinations(names, 2)
    for by in [(), *itertools.combinations(names, 1), *pairs, names]:
        expected: Counter[tuple[str, ...]] = Counter()
        calls: Counter[tuple[str, ...]] = Counter()
        for record in records:
            key = tuple(record["started_at"][:10] if name == "day" else record[name] for name in by)
            calls[key] += 1
            for tokens in record["token_usages"]:
                for name in TOKENS:
                    expected[*key, name] += tokens[name]
        rows = (await gate.json("/usage", by=list(by), **filters))["items"]
        found = {tuple(row[name] for name in by): row for row in rows}
        assert len(found) == len(rows)
        assert {key: row["calls"] for key, row in found.items()} == calls
        for key, row in found.items():
            assert {name: row[name] for name in TOKENS} == {name: expected[*key, name] for name in TOKENS}


async def test_sums_of_real_requests(url: str) -> None:
    """The sums include requests through all three APIs, streamed or not."""
    async with gateway(url, reply=Reply("Hello", tool_calls=[ToolCall("look", {"at": "it"})])) as gate:
        for path, model in ((CHAT, "gpt-5"), (RESPONSES, "gpt-5"), (MESSAGES, "claude")):
            for stream in (False, True):
                assert (await gate.ask(path, model=model, stream=stream, prompt="hi")).status_code == 200
        rows = (await gate.json("/usage", by=["provider", "model"]))["items"]
        assert [(row["provider"], row["model"], row["calls"]) for row in rows] == [
            ("anthropic", "claude", 2),
            ("openai", "gpt-5", 4),
        ]
        assert [(row["input_tokens"], row["output_tokens"]) for row in rows] == [(24, 12), (48, 24)]
        records = await gate.listing()
        assert {one["prompts"][0]["text"] for one in records} == {"hi"}
        assert {call["tool"] for one in records for call in one["tool_usages"]} == {"look"}
        assert {one["status"] for one in records} == {"completed"}


async def test_a_time_without_a_zone_is_utc(url: str) -> None:
    """A time without a zone is UTC, as with a Z."""
    await fill(url)
    async with gateway(url) as gate:
        for name in ("started_after", "started_before"):
            naive, aware = (dict[str, Any]({name: f"2026-03-02T00:00:00{zone}"}) for zone in ("", "Z"))
            assert await gate.listing(**naive) == await gate.listing(**aware)
            assert 0 < len(await gate.listing(**naive)) < 60
            assert await gate.json("/usage", **naive) == await gate.json("/usage", **aware)


async def test_whoever_asks_wrongly_is_told_so(url: str) -> None:
    """Bad cursors, groups, limits and times get a client error or an empty result, never a 500."""
    await fill(url, 3)
    async with gateway(url) as gate:
        for cursor in (
            "",
            "nonsense",
            "a" * 10_000,
            "MTox",
            "MA",
            "OmE",
            "é",
            "\0",
            "LTk5OTk5OTk5OTk5OTk5OTk5OTk5OTph",
        ):
            answer = await gate.read("/interceptions", cursor=cursor)
            assert answer.status_code in {200, 400}, (cursor, answer.text)
        answer = await gate.read("/interceptions", cursor="nonsense")
        assert (answer.status_code, answer.json()) == (
            400,
            {"detail": "the cursor is not one that this list handed out"},
        )
        for path, query in (
            ("/interceptions", {"limit": 0}),
            ("/interceptions", {"limit": 501}),
            ("/interceptions", {"limit": "many"}),
            ("/interceptions", {"started_after": "yesterday"}),
            ("/usage", {"by": "colour"}),
            ("/usage", {"by": ["day", "colour"]}),
            ("/interceptions/export", {"format": "xml"}),
        ):
            assert (await gate.read(path, **query)).status_code == 422, (path, query)
        for path in ("/interceptions", "/usage", "/interceptions/export"):
            for query in (
                {"model": "\0"},
                {"session_id": "\ufffd" * 1000},
                {"started_after": "0001-01-01T00:00:00Z"},
                {"started_before": "9999-12-31T23:59:59Z"},
                {"started_after": "0001-01-01T00:00:00+14:00"},
                {"started_before": "9999-12-31T23:59:59-12:00"},
                {"started_after": "9e15"},
            ):
                assert (await gate.read(path, **query)).status_code in {200, 422}, (path, query)
        twice = await gate.json("/usage", by=["day", "day"])
        assert twice == await gate.json("/usage", by=["day"])
