"""Runs one request to an ASGI app in its own task, and hands out the response as it comes. Knows no HTTP client."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator

from starlette.types import ASGIApp, Message, Scope

from ..exchange.response_writer import BROKEN

HIGH_WATER = 64 * 1024
"""Bytes of the response that may be unread before the app has to wait; the same as uvicorn's."""

logger = logging.getLogger(__name__)

_running: set[asyncio.Task[None]] = set()
"""References to the running tasks, because the event loop holds them only weakly."""


class ResponseBroken(Exception):
    """The app ended before its response did; the cause is its `OSError`, if it raised one."""


class Call:
    """One request to an app, which begins at once in a copy of the caller's context. Errors of the app other than
    `OSError` are raised to the reader.

    After `hang_up` the app gets `http.disconnect`, as from a server, and an `OSError` if it writes on. It is not
    cancelled, so that it can still record its end.
    """

    __slots__ = ("_body", "_gone", "_head", "_left", "_news", "_pieces", "_room", "_size", "_task", "_whole", "loop")

    def __init__(self, app: ASGIApp, scope: Scope, body: bytes | AsyncIterator[bytes]) -> None:
        self.loop = asyncio.get_running_loop()
        self._body: bytes | AsyncIterator[bytes] | None = body
        self._head: Message | None = None
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._whole = False
        self._left = False
        self._news = asyncio.Event()  # for the reader: a head, a piece, or the app's end
        self._room = asyncio.Event()  # for the app, where it waits to write
        self._gone = asyncio.Event()  # for the app, where it waits for its client to go
        self._task = self.loop.create_task(self._run(app, scope), name="aibridge-in-process")
        _running.add(self._task)
        self._task.add_done_callback(self._ended)

    async def _run(self, app: ASGIApp, scope: Scope) -> None:
        await app(scope, self._receive, self._send)

    # The reader's side

    @property
    def over(self) -> bool:
        return self._left or self._task.done()

    async def head(self) -> Message:
        """Wait for the message that starts the response. Raises `ResponseBroken`, and what the app raised."""
        while self._head is None:
            self._check()
            await self._wait()
        return self._head

    async def piece(self) -> bytes:
        """Wait for the next bytes; empty once the app has returned. Raises as `head` does."""
        while not self._pieces:
            if self._task.done():
                self._check()
                return b""
            await self._wait()
        piece = self._pieces.popleft()
        self._size -= len(piece)
        self._room.set()
        return piece

    def hang_up(self) -> None:
        """Stop reading, and tell the app. Does nothing once the app has returned."""
        if not self._task.done():
            self._left = True
            self._pieces.clear()
            self._gone.set()
            self._room.set()

    async def _wait(self) -> None:
        self._news.clear()
        await self._news.wait()

    def _check(self) -> None:
        if not self._task.done():
            return
        error = None if self._task.cancelled() else self._task.exception()
        if error is not None and not isinstance(error, OSError):
            raise error
        if not self._whole:
            raise ResponseBroken("the response broke off") from error

    # The app's side

    async def _receive(self) -> Message:
        body = self._body
        if body is not None:
            chunk = body if isinstance(body, bytes) else await anext(body, None)
            if chunk is not None and chunk is not body:
                return {"type": "http.request", "body": chunk, "more_body": True}
            self._body = None
            return {"type": "http.request", "body": chunk or b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._head = message
            self._news.set()
            return
        while self._size >= HIGH_WATER and not self._left:
            self._room.clear()
            await self._room.wait()
        if self._left:
            raise OSError("the client has gone")
        if body := message.get("body", b""):
            self._pieces.append(body)
            self._size += len(body)
            self._news.set()
        if not message.get("more_body", False):
            # Some SDKs yield the final error event like any other event, so a reader in process gets `ResponseBroken`.
            self._whole = not message.get(BROKEN, False)
            self._gone.set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        _running.discard(task)
        self._news.set()
        if self._left and not task.cancelled():
            error = task.exception()
            if error is not None and not isinstance(error, OSError):
                logger.error("a call failed after its caller had gone", exc_info=error)
