"""Recognizes events that hold nothing to record by their likeness to an earlier such event.

Most events of most streams are deltas that differ in one text. Searching each of them for everything that could matter
takes five times as long as comparing it with the one before.
"""

from __future__ import annotations

import re

_LONGEST = 4096
"""Bytes of an event that others may be compared with."""
_MOST_TEXTS = 4
_TRIES = 8
"""Events learned in a row without a match, after which comparing is given up: it is not worth it in such a stream."""

_TEXT = re.compile(rb'"(?:content|reasoning_content|reasoning|refusal|text|obfuscation)": ?"')
"""Matches the beginnings of texts in which alike events may differ. Nothing in these members is recorded."""
_BACKSLASH = ord("\\")


class Likeness:
    """Compares events with the last one learned.

    `_parts` are its bytes between the texts, `_tries` the number of events that may still be learned in vain.
    """

    __slots__ = ("_parts", "_tries")

    def __init__(self) -> None:
        self._parts: tuple[bytes, ...] = ()
        self._tries = _TRIES

    @property
    def hopes(self) -> bool:
        """Whether events have been alike, or still may be."""
        return self._tries > 0

    def end(self, block: bytes, begin: int = 0) -> int:
        """Return the end of the run of events like the learned one that begins at `begin`; `begin` where there is none.

        The block must not contain a CR.
        """
        if not self._parts:
            return begin
        first, *others = self._parts
        while block.startswith(first, begin):
            at = begin + len(first)
            for part in others:
                quote = block.find(b'"', at)
                # A text that ends in a backslash may go on after the quote, and a line break may end the event.
                if quote < 0 or block[quote - 1] == _BACKSLASH or block.find(b"\n", at, quote) >= 0:
                    return begin
                if not block.startswith(part, quote):
                    return begin
                at = quote + len(part)
            begin = at
            self._tries = _TRIES
        return begin

    def learn(self, event: bytes) -> None:
        """Compare later events with this one, which has nothing to record: one whole event, its empty line included."""
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
