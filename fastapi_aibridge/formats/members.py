"""Readers for a request's JSON that parse only the members that matter.

Building all objects of a large body would cost many times its size. A member is therefore a `Value`, a span of the
text; only the members of a small body are plain objects, lists and strings. The functions here take either.

Small input is parsed at once, and thereby validated. Large input is scanned in steps, which validates only its
punctuation: other errors are for the provider to report.
"""

from __future__ import annotations

import codecs
from collections.abc import Collection
from typing import Any

import msgspec
import orjson

from ..errors import GatewayError
from .json_string import decoding
from .large_text import BodyText, Steps
from .scanner import MAX_DEPTH, Scanner, TooMuchJSON, finish

MAX_VALUES = 1_000_000
"""Values in one request. Token lists for embeddings reach some 300,000; more are only sent to cause load."""
SMALL = 16 * 1024
"""Bytes that are parsed at once: in two milliseconds, even with the worst of shapes."""
CHECKED = 512 * 1024
"""Bytes that are validated at once, which is faster than parsing them."""
_WEIGHT = 10
"""Values that a member or element counts for where the gateway reads it, rather than skipping it."""
_BATCH = 64
"""Members or elements that are read in one step."""
_ASCII = 256 * 1024
"""Bytes that are searched for non-ASCII characters in one step."""


class Value:
    """A JSON value as a span of a text."""

    __slots__ = ("begin", "end", "text")

    def __init__(self, text: BodyText, begin: int, end: int) -> None:
        self.text = text
        self.begin = begin
        self.end = end

    @property
    def size(self) -> int:
        return self.end - self.begin

    @property
    def raw(self) -> bytes:
        return self.text[self.begin : self.end]

    def begins_with(self, byte: bytes) -> bool:
        return self.text.startswith(byte, self.begin)


Members = dict[str, Any]
"""Members by name: each is a `Value`, or the parsed value where the body is small."""


def is_object(value: object) -> bool:
    return value.begins_with(b"{") if type(value) is Value else type(value) is dict


def is_list(value: object) -> bool:
    return value.begins_with(b"[") if type(value) is Value else type(value) is list


def is_string(value: object) -> bool:
    return value.begins_with(b'"') if type(value) is Value else type(value) is str


def is_true(value: object) -> bool:
    return value is True or (type(value) is Value and value.size == 4 and value.raw == b"true")


def is_null(value: object) -> bool:
    return value is None or (type(value) is Value and value.size == 4 and value.raw == b"null")


def says_something(value: object) -> bool:
    """Whether a value is a string, list or object that is not empty."""
    if type(value) is not Value:
        return bool(value) and type(value) in (str, list, dict)
    if is_string(value):
        return value.size > 2
    return (is_list(value) or is_object(value)) and (value.size > 64 or value.raw[1:-1].strip() != b"")


def members_of(body: BodyText) -> Any:
    """Return a request's body for `read_members`: parsed, or as a `Value`.

    It is parsed where it is small and serializes to the same bytes again: then it has no member twice, and nothing that
    parsers read differently.
    """
    if len(body) <= SMALL:
        try:
            written = body[:]
            said = orjson.loads(written)
            if orjson.dumps(said) == written and type(said) is dict:
                return said
        except (ValueError, TypeError):
            pass  # `read_members` finds and reports the error
    return Value(body, 3 if body.startswith(_BOM) else 0, len(body))


class _Name:
    """A member's name as a dictionary key that equals no other, so that duplicate members are kept apart."""

    __slots__ = ("name",)

    def __init__(self, _: type, name: str) -> None:
        self.name = name


_MEMBERS = msgspec.json.Decoder(dict[_Name, msgspec.Raw], dec_hook=_Name)
_ELEMENTS = msgspec.json.Decoder(list[msgspec.Raw])
_BOM = codecs.BOM_UTF8


def read_members(value: Any, wanted: Collection[str]) -> Steps[Members]:
    """Return the wanted members of an object, by their names in lower case: some providers ignore case.

    Raises `GatewayError`, 400, for invalid JSON and for a wanted member that occurs twice: the gateway would read one
    of them and the provider might read the other.
    """
    found: Members = {}
    seen = passed = 0
    try:
        if type(value) is dict:
            for name, said in value.items():
                if name in wanted or (name := name.lower()) in wanted:
                    found[name] = said
                    seen += 1
        elif _has_few(value, b":"):
            for key, raw in _MEMBERS.decode(value.raw).items():
                name = key.name
                if name in wanted or (name := name.lower()) in wanted:
                    text = bytes(raw)
                    found[name] = Value(text, 0, len(text))
                    seen += 1
        else:
            for member in Scanner(value.text, begin=value.begin, most=MAX_VALUES, weight=_WEIGHT).members():
                if member is None or not (passed := passed + 1) % _BATCH:
                    yield
                if member is None:
                    continue
                name = _name(value.text[member.name]).lower()
                if name in wanted:
                    found[name] = Value(value.text, member.value.start, member.value.stop)
                    seen += 1
    except (ValueError, RecursionError) as error:
        raise _refusal(error) from None
    if len(found) != seen:
        raise GatewayError(400, "duplicate_member", f"the request names one of these twice: {', '.join(sorted(found))}")
    return found


def read_elements(value: Any) -> Steps[list[Any]]:
    """Return the elements of a list; empty where the value is not a list. Raises `GatewayError`, 400."""
    if type(value) is not Value or not value.begins_with(b"["):
        return value if type(value) is list else []
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
    """Whether an object or list has so few of these marks, those in strings included, that it can be split at once."""
    size = value.end - value.begin
    return size <= SMALL or (size <= CHECKED and value.raw.count(mark) <= CHECKED // 128)


def check(body: BodyText) -> Steps[None]:
    """Check that a body is UTF-8, and one of medium size that it is JSON. Raises `GatewayError`, 400.

    A small body is validated by its readers, and the punctuation of a large one by the scanner.
    """
    if SMALL < len(body) <= CHECKED:
        try:
            msgspec.json.decode(body[:].removeprefix(_BOM), type=msgspec.Raw)
        except (ValueError, RecursionError) as error:
            raise _refusal(error) from None
    decoder: codecs.IncrementalDecoder | None = None
    try:
        for begin in range(0, len(body), _ASCII):
            piece = body[begin : begin + _ASCII]
            if decoder is None:
                if piece.isascii():
                    if begin + _ASCII < len(body):
                        yield
                    continue
                decoder = codecs.getincrementaldecoder("utf-8")()
            for at in range(0, len(piece), SMALL):
                decoder.decode(piece[at : at + SMALL], begin + at + SMALL >= len(body))
                if begin + at + SMALL < len(body):
                    yield
    except UnicodeDecodeError as error:
        raise _refusal(error) from None


def read_string(value: object, most: int) -> Steps[tuple[str, bool] | None]:
    """Return at most `most` bytes of a string, and whether it was cut; None where the value is not a string.

    Raises `GatewayError`, 400, where it is not a valid JSON string.
    """
    if type(value) is str:
        return _cut(value, most)
    if type(value) is not Value or not value.begins_with(b'"'):
        return None
    try:
        if value.size <= SMALL:
            return _cut(orjson.loads(value.raw), most)
        return (yield from decoding(value.text, value.begin, value.end, most))
    except ValueError as error:
        raise _refusal(error) from None


def string(value: object, most: int) -> tuple[str, bool] | None:
    """Read a short string all at once, as `read_string` does."""
    return finish(read_string(value, most))


def _cut(text: str, most: int) -> tuple[str, bool]:
    if len(text) > most or (not text.isascii() and len(text) > most // 4 and len(text.encode()) > most):
        return text.encode()[:most].decode(errors="ignore"), True
    return text, False


def word(value: object, most: int = 256) -> str:
    """Return a string of at most `most` characters; empty where the value is longer or not a string."""
    if type(value) is str:
        return value if len(value) <= most else ""
    if type(value) is not Value or value.size > 6 * most + 2:
        return ""
    found = string(value, 6 * most)
    return found[0] if found and len(found[0]) <= most else ""


def small(value: object) -> Any:
    """Parse a value that should be a number or a word. True stands for any larger value, None for invalid JSON."""
    if type(value) is not Value:
        return value
    if value.size > 1024:
        return True
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
