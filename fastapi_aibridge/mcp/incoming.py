"""The messages that a server sends on one stream, until the reply to a request is among them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from ..sse import EventTooLarge, Framer, data_of, events
from .problems import ConnectionBroken, TooLarge, Unusable

MAX_MESSAGE = 16 * 1024 * 1024
"""Bytes of one message; results with images can take some megabytes."""
MAX_VALUES = 1_000_000
"""The approximate number of values in one message: each becomes an object."""
MAX_LENIENT = 1024 * 1024
"""Bytes of an invalid JSON message that is still read leniently, which is slow."""
MAX_STREAM = 2 * MAX_MESSAGE
"""Bytes of all messages in response to one request."""
MAX_EVENTS = 10_000
"""Events beside the reply to one request, such as a tool's progress."""
MAX_LINES = 10_000
"""Lines of one event. JSON needs one."""
MAX_REQUESTS = 16
"""Requests of the server that are answered meanwhile, mostly pings; further ones are ignored."""
MAX_EVENT_ID = 1024
RETRY = (0.1, 1.0, 10.0)
"""Seconds before a broken-off stream is requested again: minimum, default, maximum."""


class Incoming:
    """Reads the response to request `number`, or unsolicited messages if that is None.

    `asked` gets the id and the method of the server's own requests; `changed` is called when the list of tools has
    changed. The counts span all streams that carry the response to one request.
    """

    __slots__ = ("_asked", "_changed", "_events", "_number", "_requests", "_size", "last_id", "retry")

    def __init__(
        self, number: int | None, asked: Callable[[object, object], None], changed: Callable[[], None]
    ) -> None:
        self._number = number
        self._asked = asked
        self._changed = changed
        self._events = 0
        self._requests = 0
        self._size = 0
        self.last_id: str | None = None
        """The id of the last event that had one, from which the stream can be resumed."""
        self.retry = RETRY[1]

    async def stream(self, read_some: Callable[[], Awaitable[bytes]]) -> dict[str, Any] | None:
        """Return the reply; None if the stream ends before it. Raises `ConnectionBroken`, `TooLarge` and `Unusable`."""
        framer = Framer()
        torn = 0
        while piece := await read_some():
            self._size += len(piece)
            try:
                block = framer.feed(piece)
            except EventTooLarge:
                raise TooLarge(MAX_MESSAGE) from None
            torn = 0 if block else torn + len(piece)
            if max(torn, len(block)) > MAX_MESSAGE:
                raise TooLarge(MAX_MESSAGE)
            for event in events(block):
                if event.count(b"\n") + event.count(b"\r") > MAX_LINES:
                    raise Unusable("an event of its answer has more lines than anybody reads")
                self._note_position(event)
                if (data := data_of(event)) and (reply := self.message(data)) is not None:
                    return reply
                self._events += 1
                if self._events > MAX_EVENTS:
                    raise ConnectionBroken("it sent more events than anybody reads")
            if self._size > MAX_STREAM:
                raise TooLarge(MAX_STREAM)
        return None

    def message(self, data: bytes) -> dict[str, Any] | None:
        """Return the message if it is the reply; handle it otherwise. Raises `Unusable`."""
        if len(data) > MAX_VALUES and data.count(b",") + data.count(b"[") + data.count(b"{") > MAX_VALUES:
            raise Unusable("its answer has more values than anybody reads")
        messages = _parsed(data)
        for message in messages if isinstance(messages, list) else [messages]:
            if not isinstance(message, dict):
                raise Unusable("its answer is not a message")
            method = message.get("method")
            if method is None:
                if self._number is not None and message.get("id") in (self._number, str(self._number), None):
                    return message
            elif "id" in message:
                self._requests += 1
                if self._requests <= MAX_REQUESTS:
                    self._asked(message["id"], method)
            elif method == "notifications/tools/list_changed":
                self._changed()
        return None

    def _note_position(self, event: bytes) -> None:
        if b"id:" not in event and b"retry:" not in event:
            return
        for line in event.splitlines():
            name, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if name == b"id" and 0 < len(value) <= MAX_EVENT_ID and value.isascii() and value.decode().isprintable():
                self.last_id = value.decode()
            elif name == b"retry" and value.isdigit() and len(value) < 10:
                self.retry = min(max(int(value) / 1000, RETRY[0]), RETRY[2])


def _parsed(data: bytes) -> Any:
    """Parse JSON, even with what some languages write into it: lone surrogates, NaN, invalid UTF-8, a BOM."""
    try:
        return orjson.loads(data)
    except ValueError:
        pass
    if len(data) > MAX_LENIENT:
        raise Unusable("its answer is not JSON")
    try:
        return json.loads(data.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError):
        raise Unusable("its answer is not JSON") from None
