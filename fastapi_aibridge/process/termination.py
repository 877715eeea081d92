"""Hears that the process is to end, beside the server that runs it.

Servers wait for running responses before they end the lifespan, so that the lifespan's end is too late to tell a long
stream to come to its own.
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
    """While entered, calls `begin` in the event loop when a signal to end arrives; then the server's handler runs.

    Does nothing where nobody handles the signal in Python, because then it is the end at once, nor outside of the
    main thread.
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
            # Where somebody has put a handler before ours meanwhile, ours stays, and only hands on.
            if signal.getsignal(number) == self._handle:
                signal.signal(number, server)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._begin)
        self._servers[number](number, frame)
