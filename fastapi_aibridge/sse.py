"""Framing of server-sent events: finds whole events in a byte stream, and their data.

WHATWG HTML, section 9.2.6: lines end with LF, CR or CRLF, an empty line ends an event.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

MAX_EVENT_SIZE = 64 * 1024 * 1024
"""Bytes of one event; no real stream has a longer one. Responses with images reach some megabytes."""

_BLANK_LINES = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2,}")
_LINE_FEEDS = re.compile(rb"\n+")


class EventTooLarge(ValueError):
    pass


class Framer:
    """Cuts a byte stream after whole events, without changing a byte."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = bytearray()

    @property
    def rest(self) -> bytes:
        """The incomplete event at the end of the stream so far."""
        return bytes(self._rest)

    @property
    def size(self) -> int:
        """The number of bytes in `rest`."""
        return len(self._rest)

    def feed(self, chunk: bytes) -> bytes:
        """Add a chunk; return the events that are whole now, empty where there are none. Raises `EventTooLarge`."""
        rest = self._rest
        if not rest:
            if chunk.endswith(b"\n\n"):
                return chunk
            end = _end_of_events(chunk, 0)
            rest += chunk[end:]
            events = chunk[:end]
        else:
            seen = max(0, len(rest) - 3)
            rest += chunk
            end = _end_of_events(rest, seen)
            events = bytes(rest[:end])
            del rest[:end]
        if len(rest) > MAX_EVENT_SIZE:
            raise EventTooLarge(f"an event of the stream is larger than {MAX_EVENT_SIZE} bytes")
        return events


def _end_of_events(buffer: bytes | bytearray, start: int) -> int:
    """Return the index after the last empty line, 0 where there is none."""
    if buffer.find(b"\r", start) < 0:
        end = buffer.rfind(b"\n\n", start)
        return end + 2 if end >= 0 else 0
    end = 0
    # A CR at the very end may be half of a CRLF: the event waits for the next byte.
    limit = len(buffer) - 1 if buffer.endswith(b"\r") else len(buffer)
    for match in _BLANK_LINES.finditer(buffer, start, limit):
        end = match.end()
    return end


def end_of_event(block: bytes, start: int) -> int:
    """Return the index after the event that starts here, 0 where no empty line ends it.

    The block must not contain a CR. Any number of empty lines counts as one event: a block may consist of them.
    """
    end = block.find(b"\n\n", start) + 2
    if end - start == 2 and (run := _LINE_FEEDS.match(block, end)):
        return run.end()
    return end if end > 1 else 0


def events(block: bytes) -> Iterator[bytes]:
    """Yield each whole event of a block, framing included; joined they are the block."""
    start = 0
    if b"\r" not in block:
        while end := end_of_event(block, start):
            yield block[start:end]
            start = end
    else:
        for match in _BLANK_LINES.finditer(block):
            yield block[start : match.end()]
            start = match.end()
    if (tail := block[start:]) and not tail.strip(b"\r\n"):
        # A surplus line break.
        yield tail


def parts(block: bytes, size: int) -> Iterator[bytes]:
    """Split a block of whole events into parts of at most `size` bytes; joined they are the block.

    An event is never split: one that is larger is a part of its own.
    """
    if len(block) <= size:
        if block:
            yield block
        return
    start = 0
    if b"\r" in block:
        end = 0
        for match in _BLANK_LINES.finditer(block):
            if match.end() - start > size and end > start:
                yield block[start:end]
                start = end
            end = match.end()
    else:
        while len(block) - start > size:
            end = block.rfind(b"\n\n", start, start + size)
            if end < 0:
                end = block.find(b"\n\n", start + size - 1)
            if end < 0:
                break
            yield block[start : end + 2]
            start = end + 2
    if start < len(block):
        yield block[start:]


def data_of(event: bytes) -> bytes:
    """Return the event's data, lines joined with LF; empty for a comment or an event without data."""
    if event.startswith(b"data: ") and event.find(b"\n") == len(event) - 2 and b"\r" not in event:
        return event[6:-2]
    lines = [line[5:] for line in event.splitlines() if line.startswith(b"data:")]
    return b"\n".join(line.removeprefix(b" ") for line in lines)


def event(data: bytes, name: str | None = None) -> bytes:
    """Return one event; `data` must be a single line."""
    return (b"event: " + name.encode() + b"\n" if name else b"") + b"data: " + data + b"\n\n"
