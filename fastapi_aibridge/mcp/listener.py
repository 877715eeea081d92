"""A standing stream on which a server announces that its list of tools has changed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from .connection import Connection
from .problems import MCPProblem, Refused

PAUSES = (1.0, 60.0)
"""Seconds before a listener connects again, at first and at most."""


async def listen(connected: Callable[[], Awaitable[Connection]], refreshed: Callable[[], Awaitable[None]]) -> None:
    """Keep the stream open as long as the server allows.

    `connected` returns the session's connection, a new one if it was lost. `refreshed` reads the list again; it is
    called after each gap, in which changes may have been missed.
    """
    pause, longest = PAUSES
    while True:
        began = time.monotonic()
        try:
            await (await connected()).listen()
        except Refused:
            return  # it announces changes, but allows nobody to listen
        except MCPProblem:
            pass
        if time.monotonic() - began > longest:
            pause = PAUSES[0]
        await asyncio.sleep(pause)
        pause = min(2 * pause, longest)
        await refreshed()
