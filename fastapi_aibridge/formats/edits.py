"""Edits of a JSON object's text that leave every other byte as it was, in steps: a request may be 32 MiB.

Parsing and writing a body anew would lose what no parser keeps: numbers beyond 64 bits, the order and spelling of
members, white space that a signature may cover.

All functions take time in proportion to the text. They do not check what they pass over, so that a text that is JSON
only nearly (`NaN`, half a surrogate pair) can be edited too; where the text's own punctuation is broken they raise
`ValueError`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import orjson

from .large_text import BodyText, Steps, joined
from .scanner import Scanner

AT_ONCE = 32
"""Elements that are read in one step."""
_BATCH = 64
"""Members, or small elements, that are passed in one step."""
_EACH = 1024
_DENSEST = 8
"""What an element and each of its bytes count in a step: short lists of brackets are looked through token by token."""
_LARGEST_VALUE = 1024 * 1024
"""Bytes of a value that is read all at once, such as the list of tools."""
_SPACE = b" \t\r\n"


def find(text: BodyText, name: str) -> Steps[tuple[int, int] | None]:
    """Where the value of a member of this object begins and ends, the last one of that name; None if there is none."""
    return (yield from find_all(text, (name,))).get(name)


def find_all(text: BodyText, wanted: Collection[str]) -> Steps[dict[str, tuple[int, int]]]:
    """The same for several members, of those that are there."""
    found: dict[str, tuple[int, int]] = {}
    plain = {name: orjson.dumps(name) for name in wanted}
    passed = 0
    for member in Scanner(text).members():
        if member is None:
            yield
            continue
        if not (passed := passed + 1) % _BATCH:
            yield
        written = text[member.name]
        for name in wanted:
            if names(written, plain[name], name):
                found[name] = (member.value.start, member.value.stop)
    return found


def replaced(text: BodyText, begin: int, end: int, *new: BodyText) -> Steps[BodyText]:
    """The text with this in the place of that part of it."""
    whole = memoryview(text)
    return joined([whole[:begin], *new, whole[end:]])


def with_member(text: BodyText, name: str, *value: BodyText) -> Steps[BodyText]:
    """The object with this member set: its value replaced, or the member added at the end."""
    span = yield from find(text, name)
    if span is not None:
        return (yield from replaced(text, *span, *value))
    return (yield from with_new_member(text, name, *value))


def with_list(text: BodyText, name: str, elements_: Sequence[bytes]) -> Steps[BodyText]:
    """The object with this list as a member."""
    pieces: list[bytes] = [b"["]
    for one in elements_:
        pieces += [one, b","]
    pieces[-1] = b"]"
    return with_member(text, name, *pieces)


def with_new_member(text: BodyText, name: str, *value: BodyText) -> Steps[BodyText]:
    """The object with this member added at its end; it must not have one of that name."""
    end = text.rfind(b"}")
    if end < 0:
        raise ValueError("the text is not an object")
    comma = b"" if ends_with(text, end, b"{") else b","
    return replaced(text, end, end, comma, orjson.dumps(name), b":", *value)


def elements(text: BodyText) -> Steps[list[bytes]]:
    """The elements of a JSON list, each as it is written."""
    found: list[bytes] = []
    since = 0
    for place in Scanner(text).elements():
        if place is None:
            yield
            continue
        found.append(text[place])
        since += _EACH + _DENSEST * len(found[-1])
        if since > _BATCH * _EACH:
            since = 0
            yield
    return found


def list_member(text: BodyText, name: str) -> Steps[list[bytes]]:
    """The elements of the list that is this member, each as it is written; empty where it is no list."""
    span = yield from find(text, name)
    if span is None or text[span[0] : span[0] + 1] != b"[":
        return []
    return (yield from elements((yield from part(text, *span))))


def part(text: BodyText, begin: int, end: int) -> Steps[BodyText]:
    """A part of the text as a text of its own."""
    return joined([memoryview(text)[begin:end]])


def value_of(text: BodyText, name: str) -> Steps[Any]:
    """What a member of this object says; None where there is none."""
    span = yield from find(text, name)
    return value_at(text, span) if span else None


def value_at(text: BodyText, span: tuple[int, int]) -> Any:
    """What stands there; None where it is larger than what is looked at. Raises `ValueError`."""
    begin, end = span
    return orjson.loads(text[begin:end]) if end - begin <= _LARGEST_VALUE else None


def names(written: bytes, plain: bytes, name: str) -> bool:
    """Whether a member's name, as it is written in quotes, is this one; `plain` is how it is usually written."""
    if b"\\" not in written:
        return written == plain or (b"\\" in plain and written[1:-1] == name.encode(errors="surrogatepass"))
    try:
        return bool(orjson.loads(written) == name)
    except orjson.JSONDecodeError:
        return False


def ends_with(text: BodyText, end: int, byte: bytes) -> bool:
    """Whether the last byte before `end` that no white space follows is this one."""
    while end:
        begin = max(0, end - 1024)
        piece = text[begin:end].rstrip(_SPACE)
        if piece:
            return piece.endswith(byte)
        end = begin
    return False
