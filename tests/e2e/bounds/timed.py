"""The app of `tests.e2e.gateway.plain_app`, with a response header that tells the processor time which the event loop
spent between request and response. Unlike wall-clock time, it does not depend on the machine's load.
"""

from __future__ import annotations

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.e2e.gateway.plain_app import app as served

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
