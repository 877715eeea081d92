"""Finds the models that a request names: its `model`, and other members that make a provider run one."""

from __future__ import annotations

import re
from itertools import pairwise

import orjson

from ..errors import GatewayError
from ..principal import MAX_MODEL
from .large_text import BodyText, Steps, contains
from .members import Members, Value, check, read_elements, read_members, word

_NAMING = frozenset({"model", "models", "fallback", "fallbacks", "fallback_model", "fallback_models", "tools"})
"""Members that name models, as a string, a list or an object. Only `model` and `tools` are the vendors' own; the others
belong to routers behind an OpenAI-compatible URL.
"""
ALTERNATIVES = _NAMING - {"model", "tools"}
_MODEL = frozenset({"model"})
_MOST = 256
"""The most models that a request may name."""
_MOST_ALTERNATIVES = 64
"""The most models that a request may name beside its `model`: the price of each is looked up."""
_AT_ONCE = 32
"""Elements that are read in one step."""

_WINDOW = 16 * 1024
"""Bytes that are searched in one step."""
_OVERLAP = 64
_KEY = re.compile(rb'(?="((?:[^"\\]|\\.){5,30}+)")', re.DOTALL)
"""A look-ahead, so that a search that mistakes a closing quote for an opening one still misses nothing."""
_VALUE = re.compile(rb'\s*+:\s*+("(?:[^"\\]|\\.){0,1600}+")', re.DOTALL)
_FORM_FIELD = re.compile(rb'\bname\*?\s{0,8}=\s{0,8}"?model"?(?=[\s;])', re.IGNORECASE)
_BEFORE_MODEL = frozenset({"models", "deployments", "engines"})
"""Path segments that are followed by a model."""


def models_asked_for(body: BodyText) -> Steps[set[str]]:
    """Return the models that a request of a known format names.

    An empty string stands for a value that is no name, and for a request without a `model`: a stored prompt has its
    own. Tools count, since some run a model of their own. Raises `GatewayError`, 400.
    """
    yield from check(body)
    begin = 3 if body.startswith(b"\xef\xbb\xbf") else 0
    members = yield from read_members(Value(body, begin, len(body)), _NAMING)
    found = set() if "model" in members else {""}
    for name, value in members.items():
        if name.lower() != "tools":
            yield from _names(value, found)
        elif (yield from contains(value.text, (b"odel", b"\\u"), value.begin, value.end)):
            for index, tool in enumerate((yield from read_elements(value))):
                if index % _AT_ONCE == _AT_ONCE - 1:
                    yield
                if tool.begins_with(b"{"):
                    yield from _name(tool, found)
    return found


def alternatives(members: Members) -> Steps[frozenset[str]]:
    """Return the models that a request names beside its `model`; `members` holds those in `ALTERNATIVES`.

    Raises `GatewayError`, 400.
    """
    found: set[str] = set()
    for name in ALTERNATIVES & members.keys():
        value = members[name]
        if type(value) is not Value:
            raw = orjson.dumps(value)
            value = Value(raw, 0, len(raw))
        yield from _names(value, found)
    if len(found) > _MOST_ALTERNATIVES:
        raise GatewayError(400, "invalid_request", f"the request names more than {_MOST_ALTERNATIVES} other models")
    return frozenset(found - {""})


def models_anywhere(path: str, body: BodyText) -> Steps[set[str]]:
    """Return the models that are named in a path, or in a body of any form. Raises `GatewayError`, 400.

    In a body, a member `model` at any depth of JSON or of JSON lines names one, or a form field. An empty string stands
    for a value that cannot be read.
    """
    segments = path.split("/")
    found = {after.partition(":")[0] for before, after in pairwise(segments) if before in _BEFORE_MODEL}
    if (yield from contains(body, (b"\0",), 0, len(body))) and body[:_WINDOW].lstrip()[:2] != b"--":
        found.add("")  # JSON in UTF-16, which some servers read
    blank = 0
    for begin in range(0, len(body), _WINDOW):
        end = begin + _WINDOW + _OVERLAP
        for key in _KEY.finditer(body, begin, end):
            if _text(b'"%b"' % key[1]).lower() == "model" and (value := _VALUE.match(body, key.end(1) + 1)):
                _add(found, _text(value[1]))
        for field in _FORM_FIELD.finditer(body, begin, end):
            if blank < field.end():
                blank = _after_blank_line(body, field.end())
            _add(found, body[blank : blank + 4 * MAX_MODEL].partition(b"\n")[0].strip().decode("utf-8", "replace"))
        yield
    return found


def _after_blank_line(body: BodyText, begin: int) -> int:
    """Return the beginning of a form field's value; `begin` is a place in the field's headers."""
    places = [at + len(mark) for mark in (b"\n\r\n", b"\n\n") if (at := body.find(mark, begin)) >= 0]
    return min(places, default=len(body))


def _add(found: set[str], model: str) -> None:
    found.add(model)
    if len(found) > _MOST:
        raise GatewayError(400, "invalid_request", f"the request names more than {_MOST} models")


def _names(value: Value, found: set[str]) -> Steps[None]:
    """Add the models that a member names."""
    if value.begins_with(b"["):
        for index, one in enumerate((yield from read_elements(value))):
            if index % _AT_ONCE == _AT_ONCE - 1:
                yield
            yield from _name(one, found)
    else:
        yield from _name(value, found)


def _name(value: Value, found: set[str]) -> Steps[None]:
    if value.begins_with(b"{"):
        for one in (yield from read_members(value, _MODEL)).values():
            if not one.begins_with(b"{"):
                yield from _name(one, found)
    elif value.size != 4 or value.raw != b"null":
        _add(found, word(value, MAX_MODEL))


def _text(written: bytes) -> str:
    try:
        return str(orjson.loads(written))
    except orjson.JSONDecodeError:
        return ""
