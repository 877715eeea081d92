"""Finds where the values in a JSON text begin and end, without building any of them.

Texts come from strangers and may be as large as a request body. Each step takes time proportional to the bytes that it
passes, some 64 KiB at most: the driver of these generators can do other work in between.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple, TypeVar

from .large_text import BodyText, Steps

T = TypeVar("T")

MAX_DEPTH = 512
"""Levels of nesting. Parsers give up between 500 and 1,000, each at its own limit."""
_STEP = 64 * 1024
"""Bytes that are passed at a time."""
_NEAR = 1024
"""Bytes that are scanned token by token, once a bracket is known to close in them."""
_FEW = 256
"""The most strings and brackets of a larger piece that is scanned token by token as well."""
_DENSE = 16 * 1024
"""Bytes of a container that are passed at a time: brackets and commas cost more than text."""

_BEGIN = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\n\r]*+([{\[])")
_KEY = re.compile(rb'[ \t\n\r]*+("(?:[^"\\]++|\\.)*+")[ \t\n\r]*+:[ \t\n\r]*+', re.DOTALL)
_SPACE = re.compile(rb"[ \t\n\r]*+")
_AFTER = re.compile(rb"[ \t\n\r]*+([,}\]])")
_SCALAR = re.compile(rb"[-+.0-9A-Za-z]*+")
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[{}\[\]]', re.DOTALL)

_ROUND = bytes.maketrans(b"{[}]", b"(())")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"{}[]"))
_SIGNS = bytes.maketrans(b"()", b"\x01\xff")


class NotJSON(ValueError):
    """The text is not JSON of the expected kind: it is cut off, or its punctuation is wrong."""


class TooMuchJSON(ValueError):
    """The text has more values, or more levels of nesting, than any legitimate request."""


class Member(NamedTuple):
    """The places of a member in its object's text: the quoted name and the value."""

    name: slice
    value: slice


class Scanner:
    """Scans the object or list that begins at one place of a text.

    `most` limits the values in it, None for any number. A value that is yielded counts as `weight` values, a skipped
    one as one.
    """

    __slots__ = ("_at", "_left", "_text", "_weight")

    def __init__(self, text: BodyText, *, begin: int = 0, most: int | None = None, weight: int = 1) -> None:
        self._text = text
        self._at = begin
        self._left = most
        self._weight = weight

    def members(self) -> Iterator[Member | None]:
        """Yield the members of the object in order, and None at the end of a step. Raises `ValueError`."""
        text = self._text
        at = self._begin(b"{")
        if (after := _AFTER.match(text, at, at + _STEP)) and after[1] == b"}":
            return
        while True:
            key = _KEY.match(text, at, at + _STEP)
            if key is None:
                raise NotJSON("a member's name was expected")
            self._count(self._weight)
            end = yield from self._end(key.end())
            yield Member(slice(*key.span(1)), slice(key.end(), end))
            after = _AFTER.match(text, end, end + _STEP)
            if after is None or after[1] == b"]":
                raise NotJSON("a comma or the object's end was expected")
            if after[1] == b"}":
                return
            at = after.end()

    def elements(self) -> Iterator[slice | None]:
        """Yield the places of a list's elements in order, and None at the end of a step. Raises `ValueError`."""
        text = self._text
        at = self._begin(b"[")
        if (after := _AFTER.match(text, at, at + _STEP)) and after[1] == b"]":
            return
        while True:
            space = _SPACE.match(text, at, at + _STEP)
            begin = space.end() if space else at
            self._count(self._weight)
            end = yield from self._end(begin)
            yield slice(begin, end)
            after = _AFTER.match(text, end, end + _STEP)
            if after is None or after[1] == b"}":
                raise NotJSON("a comma or the list's end was expected")
            if after[1] == b"]":
                return
            at = after.end()

    def _begin(self, bracket: bytes) -> int:
        begin = _BEGIN.match(self._text, self._at, self._at + _STEP)
        if begin is None or begin[1] != bracket:
            raise NotJSON("the text is not an object" if bracket == b"{" else "the text is not a list")
        return begin.end()

    def _count(self, values: int) -> None:
        if self._left is not None:
            self._left -= values
            if self._left < 0:
                raise TooMuchJSON("the JSON has too many values")

    def _end(self, at: int) -> Steps[int]:
        """Return the end of the value that begins here."""
        match self._text[at : at + 1]:
            case b'"':
                return (yield from self._string_end(at))
            case b"{" | b"[":
                return (yield from self._container_end(at))
        return (yield from self._scalar_end(at))

    def _scalar_end(self, begin: int) -> Steps[int]:
        at = begin
        while scalar := _SCALAR.match(self._text, at, at + _STEP):
            passed, at = scalar.end() - at, scalar.end()
            if passed < _STEP:
                break
            yield
        if at == begin:
            raise NotJSON("a value was expected")
        return at

    def _string_end(self, quote: int) -> Steps[int]:
        text, at, width = self._text, quote + 1, _NEAR
        while at < len(text):
            piece = text[at : at + width]
            if b"\\" in piece:
                piece = _unescaped(piece)
            closing = piece.find(b'"')
            if closing >= 0:
                return at + closing + 1
            at += len(piece) - piece.endswith(b"\\")  # half an escape waits for its other half
            if len(piece) < width:
                break
            width = min(4 * width, _STEP)
            yield
        raise NotJSON("a string has no end")

    def _container_end(self, bracket: int) -> Steps[int]:
        text, at, depth = self._text, bracket + 1, 1
        width, most = _NEAR, _DENSE
        while at < len(text):
            piece = text[at : at + width]
            outside, quote, strings = _outside_strings(piece)
            opened = outside.count(b"{") + outside.count(b"[")
            closed = outside.count(b"}") + outside.count(b"]")
            if closed >= depth and _closes(outside, depth):
                if width <= _NEAR or strings + opened + closed <= _FEW:
                    self._count(outside.count(b",") + opened)
                    return self._closing(at, depth)
                width = most = max(_NEAR, width // 8)  # the closing bracket is in here: scan it in smaller pieces
                continue
            self._count(outside.count(b",") + opened)
            depth += opened - closed
            if depth > MAX_DEPTH:
                raise TooMuchJSON(f"the JSON is nested more than {MAX_DEPTH} levels deep")
            at = at + len(piece) if quote is None else (yield from self._string_end(at + quote))
            width = min(width * 16, most)
            yield
        raise NotJSON("a bracket is not closed")

    def _closing(self, at: int, depth: int) -> int:
        for token in _TOKEN.finditer(self._text, at):
            if token[0] in b"{[":
                depth += 1
            elif token[0] in b"}]":
                depth -= 1
                if not depth:
                    return token.end()
        raise NotJSON("a bracket is not closed")


def _outside_strings(piece: bytes) -> tuple[bytes, int | None, int]:
    """Return the bytes of a piece outside its strings, the place of a string without an end, and the number of strings.

    The piece must begin outside of a string; the place is None where each string ends within the piece.
    """
    if b"\\" in piece:
        piece = _unescaped(piece)
    parts = piece.split(b'"')
    if len(parts) % 2:
        return b"".join(parts[::2]), None, len(parts) // 2
    return b"".join(parts[:-1:2]), len(piece) - len(parts[-1]) - 1, len(parts) // 2


def _unescaped(piece: bytes) -> bytes:
    """Blank out escaped quotes and backslashes, keeping the length. The piece must not begin within an escape."""
    return piece.replace(b"\\\\", b"__").replace(b'\\"', b"__")


def _closes(outside: bytes, depth: int) -> bool:
    """Whether these brackets close, at some place, all `depth` levels that were open before."""
    brackets = outside.translate(_ROUND, _NOT_BRACKETS)
    for _ in range(3):
        brackets = brackets.replace(b"()", b"")  # pairs change nothing, and most are side by side
    if brackets.count(b")") < depth:
        return False
    return depth + min(accumulate(array("b", brackets.translate(_SIGNS))), default=0) <= 0


def finish(steps: Steps[T]) -> T:
    """Run all steps at once, and return the result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
