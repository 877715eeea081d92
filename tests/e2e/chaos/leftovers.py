"""The resources of a process that can leak: tasks, file descriptors and leases."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass

from fastapi_aibridge import AIBridge

LIMIT = 30.0


@dataclass(frozen=True, slots=True)
class Held:
    tasks: frozenset[asyncio.Task[object]]
    descriptors: frozenset[tuple[str, str]]
    leases: int


def held(aibridge: AIBridge) -> Held:
    tasks = frozenset(task for task in asyncio.all_tasks() if not task.done())
    metrics = aibridge.pool.metrics()
    return Held(tasks, frozenset(_descriptors()), metrics.leases + metrics.draining)


def _descriptors() -> list[tuple[str, str]]:
    found = []
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208 - a path for each would be made for nothing
        try:
            found.append((number, os.readlink(f"/proc/self/fd/{number}")))  # noqa: PTH115
        except OSError:
            continue
    return found


async def nothing_left_over(before: Held, aibridge: AIBridge) -> None:
    """Wait until everything acquired after `before` is released. Raises `AssertionError`, which names the rest."""
    deadline = asyncio.get_running_loop().time() + LIMIT
    while True:
        now = held(aibridge)
        more = now.tasks - before.tasks, now.descriptors - before.descriptors, now.leases - before.leases
        if not any(more):
            return
        assert asyncio.get_running_loop().time() < deadline, f"left over: {more}"
        await asyncio.sleep(0.01)
