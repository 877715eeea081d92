"""One worker compared with two behind one port, on the two cores that the load and the upstream use too."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from . import load
from .server import Server
from .table import Table

COLUMNS = ("workers", "records", "requests/s", "of one worker", "CPU µs/request")


def measure(cores: tuple[int, int], *, clients: int, seconds: int, rounds: int) -> Table:
    """Pin only the upstream and the load, to the second core; the workers may use both cores."""
    every = ",".join(map(str, cores))
    rows = []
    with tempfile.TemporaryDirectory(prefix="aibridge-bench-") as directory:
        log = Path(directory) / "log"
        with Server("upstream", "benchmarks.upstream", core=cores[1], log=log) as upstream:
            for recording in (False, True):
                rates: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
                for turn in range(rounds):
                    for workers in rates:
                        env = {"BENCH_UPSTREAM": upstream.url}
                        if recording:
                            env["BENCH_RECORDER"] = f"sqlite+aiosqlite:///{directory}/{workers}-{turn}.db"
                        rates[workers].append(_run(every, cores[1], workers, env, log, clients, seconds))
                one = statistics.median(rate for rate, _ in rates[1])
                for workers, runs in rates.items():
                    rate, cpu = (statistics.median(run[place] for run in runs) for place in (0, 1))
                    words = "SQLite" if recording else "off"
                    rows.append((str(workers), words, f"{rate:,.0f}", f"{rate / one:.2f}", f"{cpu * 1e6:.0f}"))
    return Table("workers", COLUMNS, rows)


def _run(
    cores: str, load_core: int, workers: int, env: dict[str, str], log: Path, clients: int, seconds: int
) -> tuple[float, float]:
    arguments = ("--factory", "benchmarks.gateway:build", "--no-access-log", "--log-level", "warning")
    with Server("gateway", "uvicorn", *arguments, "--workers", str(workers), core=cores, log=log, env=env) as server:
        url = f"{server.url}/ai/openai/v1/chat/completions"
        load.await_answer(url)
        load.run(url, stream=False, clients=clients, seconds=1, core=load_core)
        before = server.cpu_seconds
        outcome = load.run(url, stream=False, clients=clients, seconds=seconds, core=load_core)
        server.settle()
        return outcome.rate, (server.cpu_seconds - before) / outcome.requests
