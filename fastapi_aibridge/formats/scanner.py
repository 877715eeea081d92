"""Where the values in a JSON text begin and end, found without building any of them.

Texts come from strangers and may be as large as a body may be. Each step takes time in proportion to the bytes that it
passes, and none passes more than some 64 KiB: whoever drives the generators here can do something else in between.
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
"""Levels of nesting. Parsers give up between 500 and 1,000, each at a number of its own."""
_STEP = 64 * 1024
"""Bytes passed at a time."""
_NEAR = 1024
"""Bytes that are looked through token by token, once a bracket is known to close in them."""
_FEW = 256
"""Strings and brackets that are."""
_DENSE = 16 * 1024
"""Bytes of brackets and commas passed at a time: those cost more than text does."""

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
    """The text is not what it should be: cut off, or without the punctuation that JSON has."""


class TooMuchJSON(ValueError):
    """More values, or more levels of nesting, than anybody sends for a good reason."""


class Member(NamedTuple):
    """The places of a member in its object's text: of the quoted name and of the value."""

    name: slice
    value: slice


class Scanner:
    """Goes through the object or list that begins at one place of a text.

    `most` is how many values it may have, None for any number. One that is found by itself counts for `weight` of those
    that are passed over.
    """

    __slots__ = ("_at", "_left", "_text", "_weight")

    def __init__(self, text: BodyText, *, begin: int = 0, most: int | None = None, weight: int = 1) -> None:
        self._text = text
        self._at = begin
        self._left = most
        self._weight = weight

    def members(self) -> Iterator[Member | None]:
        """The members of the object, in their order; None ends a step. Raises `ValueError`."""
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
        """The same for a list."""
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
        """Where the value that begins here ends."""
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
                width = most = max(_NEAR, width // 8)  # it is in here: go through this piece in smaller ones
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
    """What of a piece, which begins outside of a string, is in none; where one begins that the piece does not end; and
    how many strings there are.
    """
    if b"\\" in piece:
        piece = _unescaped(piece)
    parts = piece.split(b'"')
    if len(parts) % 2:
        return b"".join(parts[::2]), None, len(parts) // 2
    return b"".join(parts[:-1:2]), len(piece) - len(parts[-1]) - 1, len(parts) // 2


def _unescaped(piece: bytes) -> bytes:
    """The piece without quotes and backslashes that are escaped, and as long. It must not begin within an escape."""
    return piece.replace(b"\\\\", b"__").replace(b'\\"', b"__")


def _closes(outside: bytes, depth: int) -> bool:
    """Whether as many brackets close at some place as are open there, `depth` being open before."""
    brackets = outside.translate(_ROUND, _NOT_BRACKETS)
    for _ in range(3):
        brackets = brackets.replace(b"()", b"")  # pairs change nothing, and most are side by side
    if brackets.count(b")") < depth:
        return False
    return depth + min(accumulate(array("b", brackets.translate(_SIGNS))), default=0) <= 0


def finish(steps: Steps[T]) -> T:
    """Do all steps at once."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
