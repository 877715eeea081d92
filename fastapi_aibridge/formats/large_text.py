"""Texts that are too large to be copied at once: each has its own memory pages, which are filled and freed in steps.

A `bytes` of 30 MB takes 10 to 50 ms to build, mostly because the kernel has to find pages, and as long to free. Here
both are done in steps. Code that reads texts in pieces (slices, searches, regular expressions) reads these too.
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Generator, Iterable
from typing import ClassVar, Protocol, TypeVar

T = TypeVar("T")
Steps = Generator[None, None, T]
"""Work in steps: each `yield` ends one, and the generator returns the result."""

LARGE = 1024 * 1024
"""Bytes from which on a text is built in steps."""
STEP = 256 * 1024
"""Bytes that are copied in one step."""
_PAGES = 1024 * 1024
"""Bytes whose pages are freed in one step."""
_PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}


class GiveBack(Protocol):
    """Runs the steps when there is time. It may be called wherever the last reference to a text ends."""

    def __call__(self, steps: Steps[None], /) -> None: ...


class LargeText(mmap.mmap):
    """A text in memory pages of its own. Made by `joined`, and not changed afterwards."""

    give_back: ClassVar[GiveBack | None] = None
    """Frees the pages of a text in steps; None frees all of them at once."""

    def startswith(self, prefix: bytes, begin: int = 0) -> bool:
        return self[begin : begin + len(prefix)] == prefix

    def __del__(self) -> None:
        # The steps hold the only reference to the text until its pages are freed, so that nobody reads freed pages.
        give_back = type(self).give_back
        if give_back is not None:
            give_back(_emptied(self))


BodyText = bytes | LargeText


def joined(pieces: Iterable[BodyText | memoryview]) -> Steps[BodyText]:
    """Join the pieces to one text. A deque is emptied on the way, so that no piece is in memory twice."""
    left = pieces if isinstance(pieces, deque) else deque(pieces)
    if len(left) == 1 and not isinstance(left[0], memoryview):
        return left[0]
    size = sum(map(len, left))
    if size < LARGE:
        return b"".join(left)
    text = LargeText(-1, size, **_PRIVATE)
    at = since = 0
    while left:
        piece = memoryview(left.popleft())
        for begin in range(0, len(piece), STEP):
            some = piece[begin : begin + STEP]
            text[at : at + len(some)] = some
            at += len(some)
            since += len(some)
            if since >= STEP:
                since = 0
                yield
    return text


def contains(text: BodyText, marks: tuple[bytes, ...], begin: int, end: int) -> Steps[bool]:
    """Whether one of these short marks occurs in this part of a text."""
    longest = max(map(len, marks))
    while begin < end:
        stop = min(end, begin + STEP)
        for mark in marks:
            if text.find(mark, begin, stop) >= 0:
                return True
        if stop == end:
            return False
        begin = stop - longest + 1
        yield
    return False


def _emptied(text: LargeText) -> Steps[None]:
    size = len(text)
    for begin in range(0, size, _PAGES):
        text.madvise(mmap.MADV_DONTNEED, begin, min(_PAGES, size - begin))
        yield


def unchanged(value: T) -> Steps[T]:
    """Return a value as the result of steps that have nothing to do."""
    return value
    yield
