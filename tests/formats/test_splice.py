"""Edits of a JSON object's text that change one member and no other byte."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_aibridge.formats.splice import find_member, set_member

from .at_once import add_member, list_member, set_list
from .observing import lean

NAMES = st.sampled_from(["stream_options", "tools", "a", "ä", 'q"', "back\\", "", "\x01"]) | st.text(max_size=3)
SPACE = st.text(" \t\r\n", max_size=2)
NUMBERS = st.sampled_from(["-0", "1e5", "123456789012345678901234567890", "0.1E-2", "1.0"])


@st.composite
def string_text(draw: st.DrawFn, value: str) -> str:
    """A string as some writer might spell it: plain, or with unnecessary escapes."""
    plain = json.dumps(value, ensure_ascii=draw(st.booleans()))
    if draw(st.booleans()) and value.isascii():
        return '"' + "".join(f"\\u{ord(character):04x}" for character in value) + '"'
    return plain


@st.composite
def value_text(draw: st.DrawFn, depth: int = 3) -> str:
    kind = draw(st.sampled_from(["string", "number", "word", "array", "object"] if depth else ["string", "number"]))
    if kind == "string":
        return draw(string_text(draw(st.text(max_size=6) | st.sampled_from(['{"tools":1}', "}],:", '\\"']))))
    if kind == "number":
        return draw(NUMBERS)
    if kind == "word":
        return draw(st.sampled_from(["true", "false", "null"]))
    if kind == "array":
        items = draw(st.lists(value_text(depth=depth - 1), max_size=3))
        return "[" + ",".join(draw(SPACE) + item + draw(SPACE) for item in items) + "]"
    return draw(object_text(depth=depth - 1))


@st.composite
def object_text(draw: st.DrawFn, depth: int = 3) -> str:
    members = []
    for name in draw(st.lists(NAMES, max_size=4)):
        pieces = [draw(SPACE), draw(string_text(name)), draw(SPACE), ":", draw(SPACE)]
        members.append("".join([*pieces, draw(value_text(depth=depth)), draw(SPACE)]))
    return "{" + (",".join(members) or draw(SPACE)) + "}"


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """The bytes of an object, with white space around it."""
    return (draw(SPACE) + draw(object_text()) + draw(SPACE)).encode()


def load(text: bytes) -> Any:
    return json.loads(text, parse_float=str, parse_int=str)


@lean
@given(bodies(), NAMES)
def test_a_member_is_found_as_a_parser_finds_it(text: bytes, name: str) -> None:
    """The span is that of the value that a parser reads: the last top-level member of that name."""
    span = find_member(text, name)
    value = load(text)
    assert (span is not None) == (name in value)
    if span is not None:
        found = text[span[0] : span[1]]
        assert load(found) == value[name]
        assert found == found.strip()


@lean
@given(bodies(), NAMES, value_text())
def test_setting_changes_one_member_and_no_other_byte(text: bytes, name: str, new: str) -> None:
    """The object then has the new value, and all bytes before and after it are unchanged."""
    span = find_member(text, name)
    result = set_member(text, name, new.encode())
    assert load(result) == {**load(text), name: load(new.encode())}
    if span is not None:
        assert result == text[: span[0]] + new.encode() + text[span[1] :]
    else:
        end = text.rindex(b"}")
        assert result.startswith(text[:end])
        assert result.endswith(text[end:])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"{}", b'{"n":1}'),
        (b" { } \n", b' { "n":1} \n'),
        (b'{"a":{}}', b'{"a":{},"n":1}'),
        (b'{"a":"{"}', b'{"a":"{","n":1}'),
        (b'{"n":null}', b'{"n":1}'),
        (b'{"n" : [1, {"n":2}] , "b":3}', b'{"n" : 1 , "b":3}'),
        (b'{"n":1,"n":2}', b'{"n":1,"n":1}'),
        (b'{"\\u006e":0}', b'{"\\u006e":1}'),
        (b'{"a":"\\\\","n":0}', b'{"a":"\\\\","n":1}'),
        (b'{"a":"n\\":","n":0}', b'{"a":"n\\":","n":1}'),
        (b'{"a":12345678901234567890.10}', b'{"a":12345678901234567890.10,"n":1}'),
    ],
)
def test_examples(before: bytes, after: bytes) -> None:
    """A member is set in objects with nested and repeated names, escapes and long numbers, and in empty ones."""
    assert set_member(before, "n", b"1") == after


def test_adding() -> None:
    """A new member is added at the end."""
    assert add_member(b'{"a":1 }', "b", b"[]") == b'{"a":1 ,"b":[]}'


@pytest.mark.parametrize("elements", [[], [b"1"], [b'"a"', b"[2]"]])
def test_lists(elements: list[bytes]) -> None:
    """A list of any length can be set, including an empty one."""
    assert list_member(set_list(b'{"a":1}', "b", elements), "b") == elements
    assert set_list(b'{"a":[7]}', "a", elements) == b'{"a":[' + b",".join(elements) + b"]}"


def test_long_strings_do_not_exhaust_the_parser() -> None:
    """Megabytes of escapes in one string do not break the search."""
    text = b'{"image":"' + b'\\n\\"' * 500_000 + b'","n":0}'
    assert set_member(text, "n", b"1") == text.replace(b'"n":0', b'"n":1')
