"""Ends a running request from outside, because its client has gone or its bridge closes."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from types import TracebackType
from typing import Self

from starlette.types import Receive

WATCH_AFTER = 0.1
"""Seconds after which a request begins to watch for its client's disconnect. Shorter requests need no watcher: their
response has been written by then."""
_RESOLUTION = 0.001
"""Seconds by which timers may fire early."""


class ClientGone(Exception):
    """The client left before the exchange was over."""


class Watches:
    """Begins to watch the clients of requests that last for `WATCH_AFTER` seconds. One timer of the event loop serves
    all requests: most end before, and setting a timer costs as much as letting it fire.
    """

    __slots__ = ("_due", "_timer")

    def __init__(self) -> None:
        self._due: OrderedDict[Interruption, float] = OrderedDict()  # in the order in which they are due
        self._timer: asyncio.TimerHandle | None = None

    def add(self, interruption: Interruption) -> None:
        loop = asyncio.get_running_loop()
        self._due[interruption] = loop.time() + WATCH_AFTER
        if self._timer is None:
            self._timer = loop.call_later(WATCH_AFTER, self._look, loop)

    def discard(self, interruption: Interruption) -> None:
        self._due.pop(interruption, None)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        while self._due:
            interruption, due = self._due.popitem(last=False)
            if due > now + _RESOLUTION:
                self._due[interruption] = due
                self._due.move_to_end(interruption, last=False)
                self._timer = loop.call_later(due - now, self._look, loop)
                return
            interruption.start_watching(loop)


class Interruption:
    """A block that `interrupt` ends by raising the reason inside it, as `asyncio.timeout` does with `TimeoutError`.

    If `receive` is given, the block ends with `ClientGone` when the client disconnects, and nobody else may read
    `receive` while it runs. There may be several blocks, one after the other; an interruption between two of them is
    raised at the start of the next.
    """

    __slots__ = ("_cancelling", "_reason", "_receive", "_settled", "_task", "_watcher", "_watches")

    def __init__(self, receive: Receive | None = None, watches: Watches | None = None) -> None:
        self._receive = receive
        self._watches = watches or Watches()
        self._reason: Exception | None = None
        self._settled = False
        self._task: asyncio.Task[object] | None = None
        self._watcher: asyncio.Task[None] | None = None

    def watch(self, receive: Receive) -> None:
        """Watch for the client's disconnect from the next block on."""
        self._receive = receive

    def __enter__(self) -> Self:
        if self._reason is not None:
            raise self._reason
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker: a coroutine runs in a task
        self._task = task
        self._settled = False
        self._cancelling = task.cancelling()
        if self._receive is not None:
            self._watches.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watches.discard(self)
        if self._watcher is not None:
            self._watcher.cancel()
        task, reason = self._task, self._reason
        # Break the reference cycles through watcher, task and the reason's traceback: they would leave a stream to the
        # garbage collector.
        self._task = self._watcher = self._reason = None
        if reason is None or task is None or task.uncancel() > self._cancelling:
            return
        if kind is None or issubclass(kind, asyncio.CancelledError):
            try:
                raise reason from None
            finally:
                del reason

    def settle(self) -> None:
        """Ignore from now on that the client leaves, because the last bytes are being sent.

        Other interruptions count: a client that reads nothing would delay the end of its bridge for ever.
        """
        self._settled = self._reason is None

    def interrupt(self, reason: Exception) -> None:
        """Raise `reason` in the running block, or at the start of the next one. Only the first reason counts."""
        if self._reason is not None or (self._settled and isinstance(reason, ClientGone)):
            return
        self._reason = reason
        if self._task is not None:
            self._task.cancel()

    def start_watching(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the task that waits for the client's disconnect."""
        if self._receive is not None:
            self._watcher = loop.create_task(self._watch(self._receive))

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.interrupt(ClientGone())
