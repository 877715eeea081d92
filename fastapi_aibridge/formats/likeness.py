"""Events that say nothing, known by one that said nothing: they are the same but for the texts in them.

Most events of most streams are deltas, and differ in a word. To look for all that could matter in each of them takes
five times as long as to see that it is like the one before.
"""

from __future__ import annotations

import re

_LONGEST = 4096
"""Bytes of an event that others are compared with."""
_MOST_TEXTS = 4
_TRIES = 8
"""Events in a row that are learnt in vain: a stream whose events are all different is not worth it."""

_TEXT = re.compile(rb'"(?:content|reasoning_content|reasoning|refusal|text|obfuscation)": ?"')
"""Where the texts begin that may differ. Nothing that is recorded is in these members."""
_BACKSLASH = ord("\\")


class Likeness:
    """Fields that change: `_parts`, what lies between the texts of the last event, and `_tries`."""

    __slots__ = ("_parts", "_tries")

    def __init__(self) -> None:
        self._parts: tuple[bytes, ...] = ()
        self._tries = _TRIES

    @property
    def hopes(self) -> bool:
        """Whether events have been alike, or still may be."""
        return self._tries > 0

    def end(self, block: bytes, begin: int = 0) -> int:
        """Up to where events like the last one follow each other in a block; `begin` where there is none.

        The block must have no CR in it.
        """
        if not self._parts:
            return begin
        first, *others = self._parts
        while block.startswith(first, begin):
            at = begin + len(first)
            for part in others:
                quote = block.find(b'"', at)
                # A text that ends in a backslash may go on behind the quote, and a line break may end the event.
                if quote < 0 or block[quote - 1] == _BACKSLASH or block.find(b"\n", at, quote) >= 0:
                    return begin
                if not block.startswith(part, quote):
                    return begin
                at = quote + len(part)
            begin = at
            self._tries = _TRIES
        return begin

    def learn(self, event: bytes) -> None:
        """Compare others with this one, which has nothing to tell: one whole event, its empty line included."""
        if not self._tries or len(event) > _LONGEST or not event.endswith(b"}\n\n") or b"\r" in event:
            return
        self._tries -= 1
        parts: list[bytes] = []
        at = 0
        for match in _TEXT.finditer(event):
            quote = event.find(b'"', match.end())
            if quote < 0 or event[quote - 1] == _BACKSLASH or len(parts) == _MOST_TEXTS:
                return
            parts.append(event[at : match.end()])
            at = quote
        if parts:
            self._parts = (*parts, event[at:])
