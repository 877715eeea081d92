"""The scanner: where JSON values begin and end, compared with a reader that goes character by character."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_aibridge.formats import scanner
from fastapi_aibridge.formats.scanner import MAX_DEPTH, NotJSON, Scanner, TooMuchJSON
from fastapi_aibridge.formats.splice import find_member, set_member

from .at_once import add_member, elements, list_member
from .observing import lean
from .test_splice import NAMES, SPACE, bodies, load, value_text


def plain_spans(text: bytes) -> list[tuple[int, int]]:
    """Return the spans of the outermost container's elements or member values, found one character at a time."""
    spans: list[tuple[int, int]] = []
    depth = 0
    begin, inside, escaped = -1, False, False
    for at, byte in enumerate(text):
        character = chr(byte)
        if inside:
            inside, escaped = escaped or character != '"', character == "\\" and not escaped
        elif character == '"':
            inside = True
            begin = at if begin < 0 else begin
        elif character in "{[":
            depth += 1
            begin = at if begin < 0 < depth - 1 else begin
        elif character == ":" and depth == 1:
            begin = -1
        elif character in "}]," and depth == 1:
            if begin >= 0:
                spans.append((begin, at))
            begin = -1
            depth -= character != ","
        elif character in "}]":
            depth -= 1
        elif begin < 0 and not character.isspace():
            begin = at
    return [(begin, begin + len(text[begin:end].rstrip(b" \t\r\n"))) for begin, end in spans]


@st.composite
def lists(draw: st.DrawFn) -> bytes:
    items = draw(st.lists(value_text(), max_size=5))
    return (
        draw(SPACE) + "[" + (",".join(draw(SPACE) + one + draw(SPACE) for one in items) or draw(SPACE)) + "]"
    ).encode()


@pytest.fixture(params=[4, 64, 64 * 1024], autouse=True)
def windows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scan in small windows, so that their borders fall everywhere, and in windows of the size in use."""
    if request.param < 64 * 1024:
        monkeypatch.setattr(scanner, "_NEAR", 4)
        monkeypatch.setattr(scanner, "_DENSE", request.param)
        monkeypatch.setattr(scanner, "_FEW", 2)


@lean
@given(bodies())
def test_members_are_where_a_plain_reader_finds_them(text: bytes) -> None:
    """All members are found in order, including duplicates."""
    found = [one.value for one in Scanner(text).members() if one]
    assert [(place.start, place.stop) for place in found] == plain_spans(text)


@lean
@given(lists())
def test_elements_are_what_a_parser_reads(text: bytes) -> None:
    """Elements are found with the bytes that they are written in."""
    assert [load(one) for one in elements(text)] == load(text)
    found = [one for one in Scanner(text).elements() if one]
    assert [(place.start, place.stop) for place in found] == plain_spans(text)


@lean
@given(bodies(), NAMES)
def test_lists_in_members(text: bytes, name: str) -> None:
    """The elements of a list are found; a member of another type has none."""
    value = load(text).get(name)
    assert [load(one) for one in list_member(text, name)] == (value if isinstance(value, list) else [])


@pytest.mark.parametrize(
    "inside",
    [
        b"[]" * 3,
        b"{}",
        b"0," * 50_000,
        b'"' + b"\\" * 100_000 + b'"',
        b'"' + b'\\"' * 50_000 + b'"',
        b'"]}"',
        b'"\\\\","]"',
    ],
)
def test_long_values_have_their_ends(inside: bytes) -> None:
    """The end of a long value is found, whatever it contains."""
    text = b'{"a":[' + inside + b'],"b":1}'
    assert find_member(text, "b") == (len(text) - 2, len(text) - 1)


@lean
@given(st.binary(max_size=60) | st.text('{}[]",:\\ \u00e41', max_size=60).map(str.encode))
def test_garbage_is_an_error_or_is_passed_over(text: bytes) -> None:
    """Garbage raises no error but `ValueError` and does not loop for ever."""
    for work in (lambda: find_member(text, "a"), lambda: elements(text), lambda: set_member(text, "a", b"1")):
        with suppress(ValueError):
            work()


@pytest.mark.parametrize("text", [b"", b'{"a":', b'{"a":1', b'{"a" 1}', b'{"a":1]', b'{"a', b'{"a":"x\\', b"5", b"[]"])
def test_an_object_that_is_cut_off_is_an_error(text: bytes) -> None:
    """A truncated or invalid object is refused, because an edit would corrupt it."""
    with pytest.raises(NotJSON):
        list(Scanner(text).members())


@pytest.mark.parametrize("text", [b"", b"[1", b"[1}", b"[,", b'["', b"[[]", b"{}"])
def test_a_list_that_is_cut_off_is_an_error(text: bytes) -> None:
    """A truncated or invalid list is refused."""
    with pytest.raises(NotJSON):
        elements(text)


def test_nesting_has_a_bound() -> None:
    """Nesting over the limit is refused, because JSON parsers have limits of their own."""
    with pytest.raises(TooMuchJSON, match="levels"):
        elements(b"[" * 100_000)
    deep = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert elements(b"[" + deep + b"]") == [deep]


def test_values_have_a_bound_where_one_is_set() -> None:
    """The number of values can be limited, with a higher weight for those at the top level."""
    text = json.dumps({"a": [0] * 1000}).encode()
    assert len([one for one in Scanner(text, most=1100, weight=10).members() if one]) == 1
    for most, weight in ((900, 1), (1000, 100)):
        with pytest.raises(TooMuchJSON, match="values"):
            list(Scanner(text, most=most, weight=weight).members())


def test_nearly_json_can_be_edited() -> None:
    """JSON with NaN, a lone surrogate or invalid UTF-8, as some providers send it, can be edited."""
    text = b'{"a":NaN,"b":"\\ud83d","c":"\xff","n":0}'
    assert set_member(text, "n", b"1") == text.replace(b'"n":0', b'"n":1')
    assert add_member(text, "m", b"2").endswith(b',"m":2}')


def test_a_byte_order_mark_stays() -> None:
    """A byte order mark before the object stays when it is edited."""
    assert set_member(b'\xef\xbb\xbf{"a":1}', "a", b"2") == b'\xef\xbb\xbf{"a":2}'
