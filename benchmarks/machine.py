"""The machine behind the figures: the cores that are used, and the description that a reader needs to judge them."""

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
    """One core for the server under test and one for everything else.

    Raises `MachineError` if there are fewer than two cores, or if the system is not Linux.
    """
    if platform.system() != "Linux":
        raise MachineError("the benchmarks pin processes to cores, which they can do on Linux only")
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        raise MachineError("the benchmarks need two cores: one for the server under test, one for the load")
    return usable[0], usable[1]


def load_by_others(used: tuple[int, int]) -> float:
    """The higher load of the two cores by other processes, from 0 to 1, sampled for one second."""
    percent = psutil.cpu_percent(interval=1, percpu=True)
    return float(max(percent[core] for core in used)) / 100


def description() -> str:
    """One line: date, processor, kernel, Python and the versions of the main packages."""
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
