"""A gateway with everything that workers share, beside one with records alone: both on PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.cluster.valkey import ValkeyServer
from tests.recorder.postgres import PostgresServer

from . import load
from .server import Server, asgi_server
from .table import Table

COLUMNS = ("gateway", "clients", "requests/s", "of records alone", "CPU µs/request")
MANY = 10**9
ALONE = "records alone"
LIMITS = {
    "BENCH_LIMITS": json.dumps(
        {
            "requests": MANY,
            "tokens": MANY,
            "max_concurrent_per_principal": 1000,
            "rules": [{"scope": "provider", "id": "*", "concurrent": 1000, "requests": MANY}],
        }
    )
}


def measure(cores: tuple[int, int], *, clients: Sequence[int], seconds: int, rounds: int) -> Table:
    """Limit each caller (requests, tokens, concurrent requests) and the provider (requests, concurrent requests)."""
    rows = []
    with _servers(cores) as servers:
        for number in clients:
            runs: dict[str, list[tuple[float, float]]] = {name: [] for name in servers}
            for _ in range(rounds):
                for name, server in servers.items():
                    runs[name].append(_run(server, cores[1], number, seconds))
            ratios = {
                name: [rate / alone for (rate, _), (alone, _) in zip(found, runs[ALONE], strict=True)]
                for name, found in runs.items()
            }
            for name, found in runs.items():
                rate, cpu = (statistics.median(run[place] for run in found) for place in (0, 1))
                low, middle, high = min(ratios[name]), statistics.median(ratios[name]), max(ratios[name])
                ratio = "1" if name == ALONE else f"{middle:.2f} ({low:.2f} to {high:.2f})"
                rows.append((name, str(number), f"{rate:,.0f}", ratio, f"{cpu * 1e6:.0f}"))
    return Table("shared", COLUMNS, rows)


@contextmanager
def _servers(cores: tuple[int, int]) -> Iterator[dict[str, Server]]:
    with ExitStack() as stack:
        log = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aibridge-bench-")))
        upstream = stack.enter_context(Server("upstream", "benchmarks.upstream", core=cores[1], log=log / "upstream"))
        postgres = stack.enter_context(PostgresServer())
        valkey = stack.enter_context(ValkeyServer())
        redis = {"BENCH_REDIS": valkey.url}
        kinds = {ALONE: {}, "with limits in Valkey": {**redis, **LIMITS}, "with limits in the process": LIMITS}
        found = {}
        for name, more in kinds.items():
            url = asyncio.run(postgres.empty_database_async())
            env = {"BENCH_UPSTREAM": upstream.url, "BENCH_RECORDER": url, **more}
            found[name] = stack.enter_context(
                asgi_server(name, "benchmarks.gateway:build", core=cores[0], log=log / name, env=env)
            )
        yield found


def _run(server: Server, load_core: int, clients: int, seconds: int) -> tuple[float, float]:
    url = f"{server.url}/ai/openai/v1/chat/completions"
    load.await_answer(url)
    load.run(url, stream=False, clients=clients, seconds=1, core=load_core)
    server.settle()
    before = server.cpu_seconds
    outcome = load.run(url, stream=False, clients=clients, seconds=seconds, core=load_core)
    server.settle()
    return outcome.rate, (server.cpu_seconds - before) / outcome.requests
