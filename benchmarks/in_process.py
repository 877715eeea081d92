"""The cost of a model call in a handler: in process, over loopback to the same app, and without a gateway."""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import openai
import uvloop
from fastapi import FastAPI

from fastapi_aibridge import AIBridge, Principal, Settings
from fastapi_aibridge.testing.serving import serve

from .load import CLIENT_KEY
from .server import Server
from .table import Table

COLUMNS = ("call", "way", "p50 ms", "p99 ms", "CPU µs/call", "of loopback")
CALLS = 300
DIRECT, LOOPBACK, IN_PROCESS = "SDK, no gateway", "SDK, loopback", "SDK, in process"

Client = Callable[[], openai.AsyncOpenAI]
Call = Callable[[openai.AsyncOpenAI], Awaitable[None]]


def measure(cores: tuple[int, int], *, rounds: int, calls: int = CALLS) -> Table:
    """Make `calls` calls in sequence with the openai SDK, without records, and take the medians over `rounds`.

    Caller and gateway are one process on one core, as in an app that calls itself; the upstream has the other core.
    Over loopback the client and its connection are kept; in process each call has a new client, as in a handler.
    """
    # The gateway shares this process's console: its line for each call would be printed between the tables.
    logging.getLogger("fastapi_aibridge.interceptions").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="aibridge-bench-") as directory:
        log = Path(directory) / "upstream.log"
        with Server("upstream", "benchmarks.upstream", core=cores[1], log=log) as upstream:
            return Table("in_process", COLUMNS, uvloop.run(_rows(upstream.url, rounds, calls)))


async def _rows(upstream: str, rounds: int, calls: int) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    async with _clients(upstream) as clients:
        for name, call in (("blocking", _blocking), ("streamed, 20 events", _streamed)):
            taken: dict[str, list[tuple[float, float, float]]] = {way: [] for way in clients}
            for client in clients.values():
                await _round(client, call, 20)  # warm-up: imports, connections
            for _ in range(rounds):
                for way, client in clients.items():
                    taken[way].append(await _round(client, call, calls))
            medians = {
                way: [statistics.median(one) for one in zip(*times, strict=True)] for way, times in taken.items()
            }
            for way, (p50, p99, cpu) in medians.items():
                share = f"{cpu / medians[LOOPBACK][2]:.2f}"
                rows.append((name, way, f"{p50 * 1e3:.2f}", f"{p99 * 1e3:.2f}", f"{cpu * 1e6:.0f}", share))
    return rows


@asynccontextmanager
async def _clients(upstream: str) -> AsyncIterator[dict[str, Client]]:
    """A function for each of the three ways that returns the client for one call."""
    settings = Settings.model_validate(
        {
            "providers": {"openai": {"base_url": f"{upstream}/v1", "api_key": "sk-upstream-0123456789"}},
            "client_keys": {"bench": CLIENT_KEY},
            "recorder": {"enabled": False},
        }
    )
    aibridge = AIBridge(settings)
    app = FastAPI()
    app.include_router(aibridge.router, prefix="/ai")
    async with (
        aibridge.lifespan(app),
        serve(app) as base,
        aibridge.bridge(Principal("bench")) as bridge,
        openai.AsyncOpenAI(base_url=f"{upstream}/v1", api_key="none", max_retries=0) as direct,
        openai.AsyncOpenAI(base_url=f"{base}/ai/openai/v1", api_key=CLIENT_KEY, max_retries=0) as loopback,
    ):
        yield {DIRECT: lambda: direct, LOOPBACK: lambda: loopback, IN_PROCESS: bridge.openai}


async def _round(client: Client, call: Call, calls: int) -> tuple[float, float, float]:
    """The p50, the p99 and the mean processor time of one call, in seconds."""
    taken = []
    cpu = time.process_time()
    for _ in range(calls):
        start = time.perf_counter()
        await call(client())
        taken.append(time.perf_counter() - start)
    cpu = (time.process_time() - cpu) / calls
    return statistics.median(taken), statistics.quantiles(taken, n=100)[98], cpu


async def _blocking(client: openai.AsyncOpenAI) -> None:
    reply = await client.chat.completions.create(model="gpt-5", messages=[{"role": "user", "content": "Hello"}])
    if not reply.choices[0].message.content:
        raise RuntimeError("an answer without text")


async def _streamed(client: openai.AsyncOpenAI) -> None:
    events = 0
    async for _ in await client.chat.completions.create(
        model="gpt-5", messages=[{"role": "user", "content": "Hello"}], stream=True
    ):
        events += 1
    if events < 20:
        raise RuntimeError(f"a stream of {events} events")
