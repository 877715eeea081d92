"""How fast records are written and read: `python benchmarks/records.py [--count 1000000] [--url URL]`.

Fills a database with two months of interceptions, then measures the listing, the sums, the export, and what recording
one interception costs the process. Prints a table in markdown.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from fastapi_aibridge.recorder.batch import Batch
from fastapi_aibridge.recorder.bounds import Room, facts_body
from fastapi_aibridge.recorder.database import Database
from fastapi_aibridge.recorder.export import export
from fastapi_aibridge.recorder.identifier import new_id
from fastapi_aibridge.recorder.recorder import InterceptionQuery
from fastapi_aibridge.recorder.records import Ending, Facts, Interception, Prompt, Status, TokenUsage
from fastapi_aibridge.recorder.rows import NO_TOKENS, add_tokens, end_row, filed_row, start_row
from fastapi_aibridge.recorder.sql import SQLRecorder
from fastapi_aibridge.recorder.store import SQLStore
from fastapi_aibridge.recorder.usage import UsageBy, UsageQuery

MODELS = ["gpt-5", "gpt-5-mini", "o5", "claude-sonnet-5", "claude-opus-5", "claude-haiku-5"]
CLIENTS = ["Codex", "Claude Code", "Cursor", "Unknown"]
DAYS = 60
BLOCK = 5000


def interception(draw: random.Random, started_at: datetime) -> Interception:
    user = draw.randrange(1000)
    # Each user keeps to one client and two models.
    model = MODELS[(user + (draw.random() < 0.2)) % len(MODELS)]
    provider = "anthropic" if model.startswith("claude") else "openai"
    return Interception(
        id=new_id(),
        initiator_id=f"user-{user}",
        api_key_id="key-1",
        provider=provider,
        provider_type=provider,
        route="/v1/messages" if provider == "anthropic" else "/v1/responses",
        model=model,
        streaming=True,
        client=CLIENTS[user % len(CLIENTS)],
        user_agent="claude-cli/2.0.14 (external, cli)",
        session_id=f"{UUID(int=draw.getrandbits(10))}",
        correlating_tool_call_id=None,
        credential_kind="centralized",
        credential_hint="sk-...1234",
        metadata={"username": "somebody"},
        started_at=started_at,
    )


def observed(draw: random.Random) -> Facts:
    usage = TokenUsage(
        message_id=f"msg_{draw.getrandbits(64):x}",
        input_tokens=draw.randrange(2000),
        output_tokens=draw.randrange(1000),
        cache_read_tokens=draw.randrange(50_000),
        extra={"reasoning": draw.randrange(300)},
    )
    return Facts(token_usages=[usage], prompts=[Prompt(message_id=usage.message_id, text="Why is it so? " * 15)])


def ending(ended_at: datetime) -> Ending:
    return Ending(status=Status.COMPLETED, ended_at=ended_at, upstream_status=200)


async def fill(url: str, count: int, until: datetime) -> float:
    """Write through the writer's own sink, in large batches. Returns the seconds that this took."""
    draw = random.Random(1)
    begun = time.perf_counter()
    async with SQLStore(url, create=True) as store:
        await store.migrate()
        database = Database(url)
        database.open(create=False)
        sink = database.sink()
        step = timedelta(days=DAYS) / count
        for block in range(0, count, BLOCK):
            batch = Batch("benchmark")
            for number in range(block, min(block + BLOCK, count)):
                each = interception(draw, until - step * (count - number))
                seen = observed(draw)
                end = end_row(each.id, ending(each.started_at), add_tokens(NO_TOKENS, seen.token_usages))
                batch.filed.append(filed_row(start_row(each, "benchmark"), end))
                batch.facts.append((each.id, number, facts_body(seen, Room())[0]))
            await sink.write(batch)
        await sink.close()
        await database.close()
    return time.perf_counter() - begun


async def median(work: Callable[[], Awaitable[object]], times: int = 15) -> float:
    """The median time in milliseconds. A first run, which warms the caches, is left out."""
    await work()
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        await work()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken) * 1000


async def recording_cost(url: str, clients: int, count: int) -> tuple[float, float]:
    """Microseconds of processor time for each interception, over all threads, and the median wait for a start in ms."""
    draw = random.Random(2)
    now = datetime.now(UTC)
    prepared = [(interception(draw, now), observed(draw)) for _ in range(count)]
    waits: list[float] = []
    async with SQLRecorder(url, retention=0) as recorder:

        async def client(number: int) -> None:
            for begun, facts in prepared[number::clients]:
                asked = time.perf_counter()
                await recorder.start(begun)
                waits.append(time.perf_counter() - asked)
                await asyncio.sleep(0)
                await recorder.end(begun.id, ending(now), facts)

        used = time.process_time()
        await asyncio.gather(*map(client, range(clients)))
        await recorder.list(InterceptionQuery(limit=1))
        used = time.process_time() - used
    return used / count * 1e6, statistics.median(waits) * 1000


def resident() -> float:
    """Megabytes of this process: its resident memory, or the peak of it where there is no `/proc`."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


async def measure(url: str, count: int) -> list[tuple[str, str]]:
    until = datetime.now(UTC)
    rows = [(f"filling in {count:,} interceptions", f"{await fill(url, count, until):.0f} s")]
    async with SQLStore(url) as store:

        async def page(**query: object) -> None:
            await store.list(InterceptionQuery(**query))  # type: ignore[arg-type]

        async def month(*by: UsageBy, **query: object) -> None:
            query = {"started_after": until - timedelta(days=30)} | query
            await store.usage(UsageQuery(by=by, **query))  # type: ignore[arg-type]

        cursor = None
        for _ in range(5):
            cursor = (await store.list(InterceptionQuery(limit=1000, cursor=cursor))).next_cursor
        past = until - timedelta(days=30)
        for name, ask in {
            "newest page of 50": page,
            "page of 50 behind a cursor": lambda: page(cursor=cursor),
            "newest page of one initiator": lambda: page(initiator_id="user-7"),
            "newest page of one model, a month ago": lambda: page(model="o5", started_before=past),
        }.items():
            rows.append((name, f"{await median(ask):.1f} ms"))
        rows.append(
            ("a month by model, no day added up yet", f"{await median(lambda: month(UsageBy.MODEL), 3):.0f} ms")
        )
        async with SQLRecorder(url, retention=0) as recorder:
            begun = time.perf_counter()
            await recorder.run_upkeep()
            await recorder.run_upkeep()
            rows.append((f"adding up {DAYS} days, once", f"{time.perf_counter() - begun:.1f} s"))
        for name, ask in {
            "a month by model": lambda: month(UsageBy.MODEL),
            "a month by day and initiator": lambda: month(UsageBy.DAY, UsageBy.INITIATOR),
            "a month of one initiator by day": lambda: month(UsageBy.DAY, initiator_id="user-7"),
        }.items():
            rows.append((name, f"{await median(ask):.1f} ms"))
        begun = time.perf_counter()
        exported, early, peak = 0, 0.0, 0.0
        async for chunk in export(store):
            exported += chunk.count(b"\n")
            if exported <= count // 20:
                early = resident()
            peak = max(peak, resident())
        taken = time.perf_counter() - begun
        assert exported == count
        rows += [
            ("exporting all of it as JSON lines", f"{taken:.0f} s, {exported / taken:,.0f} per second"),
            ("memory after a twentieth of the export, at its peak", f"{early:.0f} MB, {peak:.0f} MB"),
        ]
    for clients in (1, 32, 256):
        cost, wait = await recording_cost(url, clients, 3000 if clients == 1 else 20_000)
        rows.append(
            (f"recording, {clients} at once: processor for each, wait for a start", f"{cost:.0f} µs, {wait:.2f} ms")
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--url", help="an empty database; default: a new SQLite file that is deleted afterwards")
    parser.add_argument("--core", type=int, help="the processor to stay on")
    options = parser.parse_args()
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    with tempfile.TemporaryDirectory(prefix="aibridge-benchmark-") as directory:
        url = options.url or f"sqlite+aiosqlite:///{directory}/records.db"
        rows = asyncio.run(measure(url, options.count))
        size = sum(file.stat().st_size for file in Path(directory).iterdir()) / 1e9
        if not options.url:
            rows.append(("size of the database", f"{size:.2f} GB"))
    print("| what | measured |\n|---|---|")
    for what, value in rows:
        print(f"| {what} | {value} |")


if __name__ == "__main__":
    main()
