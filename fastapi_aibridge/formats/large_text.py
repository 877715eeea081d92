"""Texts that are too large to be copied at once: each has its own memory pages, which are filled and freed in steps.

A `bytes` of 30 MB takes 10 to 50 ms to build, mostly because the kernel has to find pages, and as long to free. Here
both are done in steps. Code that reads texts in pieces (slices, searches, regular expressions) reads these too.
"""

from __future__ import annotations

import mmap
from collections.abc import Generator, Sequence
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

    def __contains__(self, part: object) -> bool:
        # Without this, Python would compare each single byte with the part: that takes a second for 4 MB.
        return self.find(part) >= 0  # type: ignore[arg-type] # anything else is a TypeError, as with bytes

    def __del__(self) -> None:
        # The steps hold the only reference to the text until its pages are freed, so that nobody reads freed pages.
        give_back = type(self).give_back
        if give_back is not None:
            give_back(_emptied(self))


BodyText = bytes | LargeText


def joined(pieces: Sequence[BodyText | memoryview]) -> Steps[BodyText]:
    """Join the pieces to one text."""
    if len(pieces) == 1 and not isinstance(pieces[0], memoryview):
        return pieces[0]
    size = sum(map(len, pieces))
    if size < LARGE:
        return b"".join(pieces)
    text = LargeText(-1, size, **_PRIVATE)
    at = since = 0
    for one in pieces:
        piece = memoryview(one)
        for begin in range(0, len(piece), STEP):
            some = piece[begin : begin + STEP]
            text[at : at + len(some)] = some
            at += len(some)
            since += len(some)
            if since >= STEP:
                since = 0
                yield
    return text


class TextBuilder:
    """Puts together a text whose size is not known before.

    Each piece is copied at once. Large texts grow in pages of their own: pieces that wait on the heap cost some
    milliseconds when the last of them is freed, because the heap then gives all their pages back.
    """

    __slots__ = ("_large", "_pieces", "size")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._large: LargeText | None = None
        self.size = 0

    def add(self, piece: bytes) -> None:
        begin = self.size
        self.size = end = begin + len(piece)
        if self._large is None:
            self._pieces.append(piece)
            if end < LARGE:
                return
            begin, piece = 0, b"".join(self._pieces)
            self._pieces.clear()
            self._large = LargeText(-1, 2 * end, **_PRIVATE)
        elif end > len(self._large):
            self._large = _resized(self._large, 2 * end)
        self._large[begin:end] = piece

    def text(self) -> BodyText:
        """Return the text; nothing can be added afterwards."""
        return b"".join(self._pieces) if self._large is None else _resized(self._large, self.size)


def _resized(text: LargeText, size: int) -> LargeText:
    try:
        text.resize(size)
    except SystemError:  # this system cannot move pages
        other = LargeText(-1, size, **_PRIVATE)
        kept = min(size, len(text))
        other[:kept] = text[:kept]
        return other
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
