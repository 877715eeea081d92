"""The machine that figures come from: which cores are used, and what a reader must know to judge them."""

from __future__ import annotations

import datetime
import os
import platform
import re
from importlib.metadata import version
from pathlib import Path

import psutil


class MachineError(Exception):
    """This machine cannot run the benchmark; the text says what it lacks."""


def cores() -> tuple[int, int]:
    """One core for the server under test and one for everything else. Raises `MachineError` where there is but one."""
    if platform.system() != "Linux":
        raise MachineError("the benchmarks pin processes to cores, which they can do on Linux only")
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        raise MachineError("the benchmarks need two cores: one for the server under test, one for the load")
    return usable[0], usable[1]


def load_by_others(used: tuple[int, int]) -> float:
    """How busy these cores are before the benchmark begins, from 0 to 1, looked at for a second."""
    percent = psutil.cpu_percent(interval=1, percpu=True)
    return float(max(percent[core] for core in used)) / 100


def description() -> str:
    """One line: day, processor, kernel, Python and the versions of what takes part."""
    cpu = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    packages = ("fastapi", "uvicorn", "uvloop", "httptools", "aiohttp")
    return ", ".join(
        [
            f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
            f"{cpu[1].strip() if cpu else platform.machine()} ({os.cpu_count()} cores)",
            f"Linux {platform.release().split('-')[0]}",
            f"Python {platform.python_version()}",
            *(f"{package} {version(package)}" for package in packages),
        ]
    )
