"""A request's JSON, of which only the members that matter are read.

Building all of a large body's objects would cost many times its size. Small texts are read by msgspec, which checks
them on the way; large ones by the scanner, in steps, which checks their punctuation only: what else is wrong with them
is for the provider to say.
"""

from __future__ import annotations

import codecs
from collections.abc import Collection
from typing import Any

import msgspec
import orjson
from pydantic_core import from_json

from ..errors import GatewayError
from .scanner import MAX_DEPTH, Scanner, Steps, TooMuchJSON

MAX_VALUES = 1_000_000
"""Values in one request. Token lists for embeddings come to some 300,000; those beyond are there to cost."""
SMALL = 16 * 1024
"""Bytes that are read at once: with the worst of shapes in two milliseconds."""
CHECKED = 512 * 1024
"""Bytes that are checked at once, which is faster than reading them."""
_WEIGHT = 10
"""Values that an element counts for which the gateway looks at by itself, rather than passing over it."""
_BATCH = 64
"""Members or elements that are looked at in one step."""
_READ = 4 * 1024 * 1024
"""Bytes of one string that are decoded at once."""


class Value:
    """A value as it is written in a text."""

    __slots__ = ("begin", "end", "text")

    def __init__(self, text: bytes, begin: int, end: int) -> None:
        self.text = text
        self.begin = begin
        self.end = end

    @property
    def size(self) -> int:
        return self.end - self.begin

    @property
    def raw(self) -> bytes:
        return self.text if self.size == len(self.text) else self.text[self.begin : self.end]

    def begins_with(self, byte: bytes) -> bool:
        return self.text.startswith(byte, self.begin)


Members = dict[str, Value]


class _Name:
    """A member's name as a dictionary's key that is never the same as another: duplicates stay apart."""

    __slots__ = ("name",)

    def __init__(self, _: type, name: str) -> None:
        self.name = name


_MEMBERS = msgspec.json.Decoder(dict[_Name, msgspec.Raw], dec_hook=_Name)
_ELEMENTS = msgspec.json.Decoder(list[msgspec.Raw])
_BOM = codecs.BOM_UTF8


def read_members(value: Value, wanted: Collection[str]) -> Steps[Members]:
    """The wanted members of an object. One that is there twice, in whatever case, is refused: the gateway would read
    the one and the provider might read the other. Raises `GatewayError`, 400.
    """
    found: Members = {}
    seen = passed = 0
    try:
        if _has_few(value, b":"):
            for key, raw in _MEMBERS.decode(value.raw).items():
                name = key.name
                if name in wanted or name.lower() in wanted:
                    text = bytes(raw)
                    found[name] = Value(text, 0, len(text))
                    seen += 1
        else:
            for member in Scanner(value.text, begin=value.begin, most=MAX_VALUES, weight=_WEIGHT).members():
                if member is None or not (passed := passed + 1) % _BATCH:
                    yield
                if member is None:
                    continue
                name = _name(value.text[member.name])
                if name.lower() in wanted:
                    found[name] = Value(value.text, member.value.start, member.value.stop)
                    seen += 1
    except (ValueError, RecursionError) as error:
        raise _refusal(error) from None
    if len(found) != seen or len({name.lower() for name in found}) != seen:
        raise GatewayError(400, "duplicate_member", f"the request names one of these twice: {', '.join(sorted(found))}")
    return found


def read_elements(value: Value) -> Steps[list[Value]]:
    """The elements of a list; none where the value is none. Raises `GatewayError`, 400."""
    if not value.begins_with(b"["):
        return []
    found: list[Value] = []
    try:
        if _has_few(value, b","):
            return [Value(text, 0, len(text)) for text in map(bytes, _ELEMENTS.decode(value.raw))]
        for place in Scanner(value.text, begin=value.begin, most=MAX_VALUES, weight=_WEIGHT).elements():
            if place is not None:
                found.append(Value(value.text, place.start, place.stop))
            if place is None or not len(found) % _BATCH:
                yield
    except (ValueError, RecursionError) as error:
        raise _refusal(error) from None
    return found


def _has_few(value: Value, mark: bytes) -> bool:
    """Whether an object or list is quickly taken apart at once: it has few of these, those in its strings counted."""
    size = value.end - value.begin
    return size <= SMALL or (size <= CHECKED and value.text.count(mark, value.begin, value.end) <= CHECKED // 128)


def check(body: bytes) -> Steps[None]:
    """Whether it is UTF-8, and JSON as far as that can be told in one step. Raises `GatewayError`, 400."""
    if SMALL < len(body) <= CHECKED:
        try:
            msgspec.json.decode(body.removeprefix(_BOM), type=msgspec.Raw)
        except (ValueError, RecursionError) as error:
            raise _refusal(error) from None
    if body.isascii():
        return
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for begin in range(0, len(body), SMALL):
            decoder.decode(body[begin : begin + SMALL], begin + SMALL >= len(body))
            if begin + SMALL < len(body):
                yield
    except UnicodeDecodeError as error:
        raise _refusal(error) from None


def string(value: Value | None, most: int) -> tuple[str, bool] | None:
    """A string, at most `most` bytes of it, and whether it was cut; None where the value is none.

    Raises `GatewayError`, 400, where it is no string that JSON knows.
    """
    if value is None or not value.begins_with(b'"'):
        return None
    # An escape may be three times as long as what it stands for, and for a control character six times.
    limit = min(3 * most, max(most, _READ))
    try:
        if value.size <= limit + 2:
            text, cut = orjson.loads(value.raw), False
        else:
            piece = value.text[value.begin : value.begin + limit]
            text, cut = from_json(piece, allow_partial="trailing-strings", cache_strings=False), True
    except ValueError as error:
        raise _refusal(error) from None
    if len(text) > most or (not text.isascii() and len(text) > most // 4 and len(text.encode()) > most):
        text, cut = text.encode()[:most].decode(errors="ignore"), True
    return text, cut


def word(value: Value | None, most: int = 256) -> str:
    """A short string, empty where the value is none or longer."""
    if value is None:
        return ""
    known = _KNOWN.get(value.text)
    if known is not None:
        return known
    if value.size > 6 * most + 2:
        return ""
    found = string(value, 6 * most)
    return found[0] if found and len(found[0]) <= most else ""


_KNOWN = {f'"{one}"'.encode(): one for one in ("user", "assistant", "system", "tool", "text", "input_text", "message")}


def small(value: Value | None) -> Any:
    """What a value says that should be a number or a word; True for a larger one that says something."""
    if value is None or value.size > 1024:
        return value is not None
    try:
        return orjson.loads(value.raw)
    except orjson.JSONDecodeError:
        return None


def _name(written: bytes) -> str:
    return str(orjson.loads(written)) if len(written) <= SMALL else ""


def _refusal(error: ValueError | RecursionError) -> GatewayError:
    if isinstance(error, TooMuchJSON):
        return GatewayError(400, "invalid_json", f"the request body is not accepted: {error}")
    if isinstance(error, RecursionError):
        message = f"the request body is nested too deeply; {MAX_DEPTH} levels are taken"
        return GatewayError(400, "invalid_json", message)
    if isinstance(error, msgspec.ValidationError):
        return GatewayError(400, "invalid_request", "the request body is not a JSON object")
    return GatewayError(400, "invalid_json", f"the request body is not valid JSON: {str(error)[:200]}")
