"""Edits of a JSON object's text that leave every other byte as it was.

Parsing and writing a body anew would lose what no parser keeps: numbers beyond 64 bits, the order and spelling of
members, white space that a signature may cover.

All functions take time in proportion to the text. They do not check what they pass over, so that a text that is JSON
only nearly (`NaN`, half a surrogate pair) can be edited too; where the text's own punctuation is broken they raise
`ValueError`.
"""

from __future__ import annotations

import orjson

from .scanner import Scanner


def find_member(text: bytes, name: str) -> tuple[int, int] | None:
    """Where the value of a member of this object begins and ends, the last one of that name; None if there is none."""
    found: slice | None = None
    plain = orjson.dumps(name)
    for member in Scanner(text).members():
        if member is not None and names(text[member.name], plain, name):
            found = member.value
    return (found.start, found.stop) if found else None


def set_member(text: bytes, name: str, value: bytes) -> bytes:
    """The object with this member set: its value replaced, or the member added at the end."""
    span = find_member(text, name)
    if span is not None:
        return text[: span[0]] + value + text[span[1] :]
    return add_member(text, name, value)


def add_member(text: bytes, name: str, value: bytes) -> bytes:
    """The object with this member added at its end; it must not have one of that name."""
    end = text.rindex(b"}")
    comma = b"" if _ends_with(text, end, b"{") else b","
    return b"".join((memoryview(text)[:end], comma, orjson.dumps(name), b":", value, memoryview(text)[end:]))


def elements(text: bytes) -> list[bytes]:
    """The elements of a JSON list, each as it is written."""
    return [text[place] for place in Scanner(text).elements() if place is not None]


def list_member(text: bytes, name: str) -> list[bytes]:
    """The elements of the list that is this member, each as it is written; empty where it is no list."""
    span = find_member(text, name)
    return elements(text[span[0] : span[1]]) if span and text.startswith(b"[", span[0]) else []


def names(written: bytes, plain: bytes, name: str) -> bool:
    """Whether a member's name, as it is written in quotes, is this one; `plain` is how it is usually written."""
    if b"\\" not in written:
        return written == plain or (b"\\" in plain and written[1:-1] == name.encode(errors="surrogatepass"))
    try:
        return bool(orjson.loads(written) == name)
    except orjson.JSONDecodeError:
        return False


def _ends_with(text: bytes, end: int, byte: bytes) -> bool:
    """Whether the last byte before `end` that is no white space is this one."""
    while end and text[end - 1] in b" \t\r\n":
        end -= 1
    return text.endswith(byte, 0, end)
