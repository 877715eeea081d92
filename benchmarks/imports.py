"""The cost of `import fastapi_aibridge` after FastAPI has been imported, and of the modules that the start loads."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

from .table import Table

COLUMNS = ("step", "ms of processor time", "modules")
_SCRIPT = """
import json, sys, time
import fastapi

def step(work):
    known, begin = len(sys.modules), time.process_time()
    work()
    return time.process_time() - begin, len(sys.modules) - known

def package():
    import fastapi_aibridge

def routes():
    fastapi_aibridge.AIBridge().router

def engine():
    import fastapi_aibridge.runtime

steps = [step(package)]
import fastapi_aibridge
print(json.dumps([*steps, step(routes), step(engine)]))
"""
_STEPS = ("`import fastapi_aibridge`, beyond FastAPI", "`AIBridge().router`", "the engine, at the lifespan's start")


def measure(*, rounds: int) -> Table:
    """The medians of `rounds` fresh processes. A first one, which may compile the modules, is left out."""
    runs = [_run() for _ in range(rounds + 1)][1:]
    rows = []
    for index, name in enumerate(_STEPS):
        seconds = statistics.median(run[index][0] for run in runs)
        rows.append((name, f"{seconds * 1e3:.0f}", str(runs[0][index][1])))
    return Table("imports", COLUMNS, rows)


def _run() -> list[tuple[float, int]]:
    done = subprocess.run([sys.executable, "-c", _SCRIPT], check=True, capture_output=True, text=True)
    steps: list[tuple[float, int]] = json.loads(done.stdout)
    return steps
