"""Handles the signals that end the process, in addition to the server's own handlers.

Servers wait for running responses before they end the lifespan, so the end of the lifespan is too late to end a long
stream.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Termination:
    """A context manager that calls `begin` in the event loop when SIGTERM or SIGINT arrives, then the server's handler.

    Does nothing outside of the main thread, or if the signal has no handler in Python: then the process ends at once.
    """

    def __init__(self, begin: Callable[[], object]) -> None:
        self._begin = begin
        self._servers: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                server = signal.getsignal(number)
                if callable(server) and server is not signal.default_int_handler:
                    self._servers[number] = server
                    signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop = None
        for number, server in self._servers.items():
            # If another handler has wrapped ours meanwhile, ours stays and only calls the server's.
            if signal.getsignal(number) == self._handle:
                signal.signal(number, server)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._begin)
        self._servers[number](number, frame)
