"""A long JSON string decoded in steps: one of a megabyte, made of escapes, takes 15 ms at once."""

from __future__ import annotations

import re

import orjson

from .large_text import BodyText, Steps

_PIECE = 32 * 1024
"""Bytes that are decoded in one step."""
_WHOLE = re.compile(
    rb"(?:[^\\]++|\\(?:[^u]|u(?![dD][89abAB])....|u[dD][89abAB]..(?:\\u....|(?=[^\\])|(?=\\[^u]))))*+", re.DOTALL
)
"""As many characters as are there whole: no half of an escape, nor of two that stand for one character."""


def decoding(text: BodyText, begin: int, end: int, most: int) -> Steps[tuple[str, bool]]:
    """The string that is written there in quotes, at most `most` bytes of it, and whether it was cut.

    Raises `ValueError` where what was read is no string that JSON knows.
    """
    pieces: list[str] = []
    at, stop = begin + 1, end - 1
    while at < stop:
        to = _boundary(text, at, stop)
        piece: str = orjson.loads(b'"%b"' % text[at:to])
        size = len(piece) if piece.isascii() else len(piece.encode())
        if size > most:
            pieces.append(piece.encode()[:most].decode(errors="ignore"))
            return "".join(pieces), True
        pieces.append(piece)
        most -= size
        at = to
        yield
    return "".join(pieces), False


def _boundary(text: BodyText, at: int, stop: int) -> int:
    """A place behind `at` where no character is cut in two."""
    to = at + _PIECE
    if to >= stop:
        return stop
    whole = _WHOLE.match(text, at, to)
    if whole is not None and whole.end() > at:
        to = whole.end()
    while to > at + 1 and text[to] & 0xC0 == 0x80:
        to -= 1
    return to
