"""A standing stream on which a server announces that its list of tools has changed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from .connection import Connection
from .problems import MCPProblem, Refused

PAUSES = (1.0, 60.0)
"""Seconds before a listener comes back, at first and at most."""


async def listen(connected: Callable[[], Awaitable[Connection]], refreshed: Callable[[], Awaitable[None]]) -> None:
    """Keep the stream open as long as the server lets us.

    `connected` gives the session, a new one where it was lost. `refreshed` reads the list again: after each gap, as
    nobody knows what was missed.
    """
    pause, longest = PAUSES
    while True:
        began = time.monotonic()
        try:
            await (await connected()).listen()
        except Refused:
            return  # it announces changes, but nobody may listen
        except MCPProblem:
            pass
        if time.monotonic() - began > longest:
            pause = PAUSES[0]
        await asyncio.sleep(pause)
        pause = min(2 * pause, longest)
        await refreshed()
