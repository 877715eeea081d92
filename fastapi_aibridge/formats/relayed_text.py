"""Estimates how much a model said in relayed events, for a provider that has reported no usage.

Parsing every event for that would cost more than all other work on it. Blocks are therefore collected, and read once
they are large or an estimate is asked for.
"""

from __future__ import annotations

import re

import orjson

from .large_text import BodyText

_KEPT = 16 * 1024
"""Bytes of events that are collected unread."""
_LARGEST = 128 * 1024
"""Bytes of a block of events, a response or a request that are read; the rest is taken to be alike."""

_STRING = rb'%s"\s*:\s*"([^"\\]*(?:\\.[^"\\]*)*)"'
# Names match by their ends: `content` finds `reasoning_content` too.
_SAID = ("content", "reasoning", "refusal", "text", "thinking", "partial_json", "arguments", "input")
_Members = tuple[tuple[bytes, re.Pattern[bytes]], ...]
"""Ends of members' names, each with a pattern for the texts of such members."""


def _members(*names: str) -> _Members:
    return tuple((b'%s"' % name.encode(), re.compile(_STRING % name.encode(), re.DOTALL)) for name in names)


_ANYWHERE = _members(*_SAID)
_IN_STREAMS = {
    "messages": _members("text", "thinking", "partial_json"),
    "responses": _members('"delta'),  # its other events repeat the deltas
}
"""Members that hold the model's words, for formats where those of `_ANYWHERE` would count too much."""
_DATA = re.compile(rb"(?<![A-Za-z0-9+/=_-])[A-Za-z0-9+/=_-]{256,}")
"""Matches base64 of images and files, which is no text."""
_PER_TOKEN = 4
"""Characters for one token, as an estimate without a tokenizer."""


class RelayedText:
    """The relayed text of one upstream message."""

    __slots__ = ("_blocks", "_characters", "_members", "_size")

    def __init__(self, format_name: str) -> None:
        self._members = _IN_STREAMS.get(format_name, _ANYWHERE)
        self._blocks: list[bytes] = []
        self._size = 0
        self._characters = 0

    def add(self, block: bytes) -> None:
        """Add whole events."""
        self._blocks.append(block)
        self._size += len(block)
        if self._size > _KEPT:
            self._read()

    def tokens(self) -> int:
        """Estimate the tokens said so far."""
        self._read()
        return tokens_of(self._characters)

    def _read(self) -> None:
        self._characters += _said(self._members, b"".join(self._blocks))
        self._blocks = []
        self._size = 0


def tokens_of_answer(body: bytes) -> int:
    """Estimate the output tokens of a response that is no stream."""
    return tokens_of(_said(_ANYWHERE, body))


def tokens_of_request(body: BodyText) -> int:
    """Estimate the input tokens of a request; images and files are left out."""
    part = body[:_LARGEST]
    text = _DATA.sub(b"", part)
    return tokens_of(len(text.decode("utf-8", "ignore")) * len(body) // max(len(part), 1))


def tokens_of(characters: int) -> int:
    return -(-characters // _PER_TOKEN)


def _said(members: _Members, whole: bytes) -> int:
    """Count the characters of the texts in these members."""
    events = whole[:_LARGEST]
    plain = b"\\" not in events and events.isascii()
    total = 0
    for name, pattern in members:
        if name in events:
            total += sum(map(len if plain else _length, pattern.findall(events)))
    return total if events is whole else total * len(whole) // len(events)


def _length(text: bytes) -> int:
    if b"\\" in text:
        try:
            return len(orjson.loads(b'"%s"' % text))
        except orjson.JSONDecodeError:
            pass
    return len(text) if text.isascii() else len(text.decode("utf-8", "ignore"))
