"""Waiting for other tasks, threads and processes."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable


async def turns(number: int = 20) -> None:
    """Let the event loop look at its sockets this many times: on a busy machine a pause may pass without one look."""
    for _ in range(number):
        await asyncio.sleep(0.001)


async def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until the condition, which may be a coroutine function, holds. Raises `TimeoutError` after these seconds."""
    async with asyncio.timeout(seconds):
        while True:
            holds = condition()
            if await holds if inspect.isawaitable(holds) else holds:
                return
            await asyncio.sleep(0.005)
