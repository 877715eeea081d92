"""Tasks and timers of the pool, which do not run in the context of the request that caused them."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol


class Timer(Protocol):
    def cancel(self) -> object: ...


class Clock(Protocol):
    """A source of time, in seconds, and of timers. An asyncio event loop is one."""

    def time(self) -> float: ...

    def call_at(self, when: float, callback: Callable[..., object], /, *args: Any) -> Timer: ...


class LoopClock:
    """The running loop's timers on the system's monotonic time, which can also be read outside of a loop."""

    time = staticmethod(time.monotonic)

    def call_at(self, when: float, callback: Callable[..., object], /, *args: Any) -> Timer:
        return asyncio.get_running_loop().call_later(when - time.monotonic(), callback, *args)


class Background:
    """Runs tasks and timers in copies of the context in which it was made."""

    def __init__(self, clock: Clock | None) -> None:
        self.clock: Clock = clock or LoopClock()
        # Tasks and timers outlive the request that caused them, so they must not keep its context variables alive.
        self._context = contextvars.copy_context()
        self._tasks: set[asyncio.Task[None]] = set()  # the loop itself holds tasks weakly

    def context(self) -> contextvars.Context:
        return self._context.copy()

    def spawn(
        self,
        work: Callable[[], Awaitable[None]],
        done: Callable[[asyncio.Task[None]], None],
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[None]:
        """Run `work` in a task, and call `done` when it has ended, failed or been cancelled."""
        task = asyncio.create_task(_run(work), context=context or self.context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard, context=self._context)
        task.add_done_callback(done, context=self._context)
        return task

    def after(self, seconds: float, callback: Callable[..., object], *args: object) -> Timer:
        return self.at(self.clock.time() + seconds, callback, *args)

    def at(self, when: float, callback: Callable[..., object], *args: object) -> Timer:
        return self.context().run(self.clock.call_at, when, callback, *args)


async def _run(work: Callable[[], Awaitable[None]]) -> None:
    # Called in the task, so that an error before the first await fails the task and not the caller of `spawn`.
    await work()
