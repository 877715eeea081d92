"""The cost of budgets: two gateways that record, one of them with a budget for its caller."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from . import load
from .server import Server, asgi_server
from .table import Table

COLUMNS = ("answers", "budgets", "requests/s", "of those without", "CPU µs/request")
CHAT = "/ai/openai/v1/chat/completions"
BUDGETS = json.dumps([{"scope": "default", "usd": 1_000_000, "period": "month"}])
PRICES = json.dumps({"openai": {"*": {"input": 1, "output": 10}}})


def measure(cores: Sequence[int], *, clients: int, seconds: int, rounds: int) -> Table:
    """Measure both gateways in alternating rounds, so that noise on the machine hits both."""
    core, load_core = cores[0], cores[1]
    rows = []
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aibridge-bench-")))
        log = directory / "upstream.log"
        upstream = stack.enter_context(Server("upstream", "benchmarks.upstream", core=load_core, log=log))

        def gateway(name: str, **env: str) -> Server:
            url = f"sqlite+aiosqlite:///{directory / name}.db"
            env |= {"BENCH_UPSTREAM": upstream.url, "BENCH_RECORDER": url, "AIBRIDGE_PRICES": PRICES}
            server = asgi_server(name, "benchmarks.gateway:build", core=core, log=directory / f"{name}.log", env=env)
            return stack.enter_context(server)

        servers = {"off": gateway("off"), "on": gateway("on", AIBRIDGE_BUDGETS=BUDGETS)}
        for stream in (False, True):
            rates: dict[str, list[float]] = {name: [] for name in servers}
            cpu: dict[str, list[float]] = {name: [] for name in servers}
            for server in servers.values():
                load.run(server.url + CHAT, stream=stream, clients=8, seconds=1, core=load_core)
            for turn in range(rounds):
                for name in list(servers)[:: 1 if turn % 2 else -1]:
                    server = servers[name]
                    before = server.cpu_seconds
                    outcome = load.run(
                        server.url + CHAT, stream=stream, clients=clients, seconds=seconds, core=load_core
                    )
                    server.settle()
                    rates[name].append(outcome.rate)
                    cpu[name].append((server.cpu_seconds - before) / outcome.requests)
            ratios = [on / off for on, off in zip(rates["on"], rates["off"], strict=True)]
            shown = {"off": "1", "on": f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"}
            rows += [
                (
                    "streamed" if stream else "blocking",
                    name,
                    f"{statistics.median(rates[name]):,.0f}",
                    shown[name],
                    f"{statistics.median(cpu[name]) * 1e6:.0f}",
                )
                for name in servers
            ]
    return Table("budgets", COLUMNS, rows)
