"""Decodes long JSON strings in steps: a megabyte of escapes takes 15 ms at once."""

from __future__ import annotations

import re

import orjson

from .large_text import BodyText, Steps

_PIECE = 32 * 1024
"""Bytes that are decoded in one step."""
_WHOLE = re.compile(
    rb"(?:[^\\]++|\\(?:[^u]|u(?![dD][89abAB])....|u[dD][89abAB]..(?:\\u....|(?=[^\\])|(?=\\[^u]))))*+", re.DOTALL
)
"""Matches whole characters only: no half of an escape, nor of two escapes that stand for one character."""


def decoding(text: BodyText, begin: int, end: int, most: int) -> Steps[tuple[str, bool]]:
    """Decode the quoted string at this span, at most `most` bytes of it. Return it, and whether it was cut.

    Raises `ValueError` where the decoded part is not a valid JSON string.
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
    """Return a place after `at` at which no character is cut in two."""
    to = at + _PIECE
    if to >= stop:
        return stop
    whole = _WHOLE.match(text, at, to)
    if whole is not None and whole.end() > at:
        to = whole.end()
    while to > at + 1 and text[to] & 0xC0 == 0x80:
        to -= 1
    return to
