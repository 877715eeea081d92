"""Edits of a JSON object's text, in steps, that leave all other bytes as they were. A request may have 32 MiB.

Parsing a body and serializing it again would lose details that no parser keeps: numbers beyond 64 bits, the order and
spelling of members, white space that a signature may cover.

All functions take time proportional to the text. They do not validate the values that they skip, so that a text that is
only nearly JSON (`NaN`, half a surrogate pair) can be edited too; broken punctuation raises `ValueError`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import orjson

from .large_text import BodyText, Steps, joined
from .scanner import Scanner

AT_ONCE = 32
"""Elements that are processed in one step."""
_BATCH = 64
"""Members, or small elements, that are skipped in one step."""
_EACH = 1024
_DENSEST = 8
"""Costs of an element (`_EACH`) and of each of its bytes (`_DENSEST`); a step may cost `_BATCH * _EACH`. Short lists of
brackets are scanned token by token.
"""
_LARGEST_VALUE = 1024 * 1024
"""Bytes of the largest value that is parsed, all at once: the list of tools, for instance."""
_SPACE = b" \t\r\n"


def find(text: BodyText, name: str) -> Steps[tuple[int, int] | None]:
    """Find the beginning and end of a member's value, the last one of that name; None if there is none."""
    return (yield from find_all(text, (name,))).get(name)


def find_all(text: BodyText, wanted: Collection[str]) -> Steps[dict[str, tuple[int, int]]]:
    """Find the values of several members, as `find` does; missing members are left out."""
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
    """Return the text with one part of it replaced."""
    whole = memoryview(text)
    return joined([whole[:begin], *new, whole[end:]])


def with_member(text: BodyText, name: str, *value: BodyText) -> Steps[BodyText]:
    """Return the object with this member set: its value is replaced, or the member added at the end."""
    span = yield from find(text, name)
    if span is not None:
        return (yield from replaced(text, *span, *value))
    return (yield from with_new_member(text, name, *value))


def with_list(text: BodyText, name: str, elements_: Sequence[bytes]) -> Steps[BodyText]:
    """Return the object with this list as a member."""
    pieces: list[bytes] = []
    for one in elements_:
        pieces += [b",", one]
    return with_member(text, name, b"[", *pieces[1:], b"]")


def with_new_member(text: BodyText, name: str, *value: BodyText) -> Steps[BodyText]:
    """Return the object with this member added at its end; it must not have one of that name."""
    end = text.rfind(b"}")
    if end < 0:
        raise ValueError("the text is not an object")
    comma = b"" if ends_with(text, end, b"{") else b","
    return replaced(text, end, end, comma, orjson.dumps(name), b":", *value)


def elements(text: BodyText) -> Steps[list[bytes]]:
    """Return the elements of a JSON list, each as it is written."""
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
    """Return the elements of a member, each as it is written; empty where the member is not a list."""
    span = yield from find(text, name)
    if span is None or text[span[0] : span[0] + 1] != b"[":
        return []
    return (yield from elements((yield from part(text, *span))))


def part(text: BodyText, begin: int, end: int) -> Steps[BodyText]:
    """Copy a part of the text."""
    return joined([memoryview(text)[begin:end]])


def value_of(text: BodyText, name: str) -> Steps[Any]:
    """Parse the value of a member; None where there is none or it is too large. Raises `ValueError`."""
    span = yield from find(text, name)
    return value_at(text, span) if span else None


def value_at(text: BodyText, span: tuple[int, int]) -> Any:
    """Parse the value at this span; None where it is larger than `_LARGEST_VALUE`. Raises `ValueError`."""
    begin, end = span
    return orjson.loads(text[begin:end]) if end - begin <= _LARGEST_VALUE else None


def names(written: bytes, plain: bytes, name: str) -> bool:
    """Whether a member's name, as written in quotes, is `name`; `plain` is the usual way to write that."""
    if b"\\" not in written:
        return written == plain or (b"\\" in plain and written[1:-1] == name.encode(errors="surrogatepass"))
    try:
        return bool(orjson.loads(written) == name)
    except orjson.JSONDecodeError:
        return False


def ends_with(text: BodyText, end: int, byte: bytes) -> bool:
    """Whether the last byte before `end`, white space aside, is this one."""
    while end:
        begin = max(0, end - 1024)
        piece = text[begin:end].rstrip(_SPACE)
        if piece:
            return piece.endswith(byte)
        end = begin
    return False
