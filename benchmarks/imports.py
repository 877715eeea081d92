"""What `import fastapi_aibridge` costs an app that has imported FastAPI anyway."""

from __future__ import annotations

import statistics
import subprocess
import sys

from .table import Table

COLUMNS = ("import", "ms, beyond FastAPI", "modules")
_SCRIPT = """
import sys, time, fastapi
known = len(sys.modules)
begin = time.perf_counter()
import fastapi_aibridge
print(time.perf_counter() - begin, len(sys.modules) - known)
"""


def measure(*, rounds: int) -> Table:
    """The median of `rounds` fresh processes, compiled files being there."""
    runs = [_run() for _ in range(rounds + 1)][1:]
    seconds, modules = statistics.median(run[0] for run in runs), runs[0][1]
    return Table("imports", COLUMNS, [("fastapi_aibridge", f"{seconds * 1e3:.0f}", f"{modules:.0f}")])


def _run() -> tuple[float, float]:
    done = subprocess.run([sys.executable, "-c", _SCRIPT], check=True, capture_output=True, text=True)
    seconds, modules = map(float, done.stdout.split())
    return seconds, modules
