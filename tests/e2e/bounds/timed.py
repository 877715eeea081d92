"""The app of `tests.e2e.limits.serving`, whose answers say how much processor time its event loop has spent between a
request and its answer. Unlike time by the clock, that does not depend on what else the machine has to do.
"""

from __future__ import annotations

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.e2e.limits.serving import app as served

LOOP_TIME = b"x-loop-microseconds"


class Timed:
    def __init__(self, inner: ASGIApp) -> None:
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = time.thread_time()

        async def timed(message: Message) -> None:
            if message["type"] == "http.response.start":
                spent = b"%d" % ((time.thread_time() - begun) * 1e6)
                message["headers"] = [*message["headers"], (LOOP_TIME, spent)]
            await send(message)

        await self._inner(scope, receive, timed if scope["type"] == "http" else send)


app = Timed(served)
