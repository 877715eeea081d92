"""JSON of upstreams and clients, read as leniently as the vendors' SDKs read it: nothing here raises."""

from __future__ import annotations

import json
from typing import Any

import orjson


def load(data: bytes) -> dict[str, Any]:
    """The JSON object in an upstream's bytes, empty where it is none: an observer never fails."""
    return load_answer(data) or {}


def load_answer(data: bytes) -> dict[str, Any] | None:
    """The same, where it matters that it is none."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        value = _load_loosely(data)
    return value if isinstance(value, dict) else None


def _load_loosely(data: bytes) -> Any:
    """What some providers send and most clients read, though it is no JSON: NaN, half a surrogate pair."""
    try:
        value = json.loads(data.decode("utf-8-sig", errors="replace"), parse_int=_integer)
        # Half a pair is no character, and no database takes it.
        return json.loads(json.dumps(value, ensure_ascii=False).encode(errors="replace"))
    except (ValueError, RecursionError):
        return None


def _integer(digits: str) -> int | float:
    """As orjson has it: what is no 64-bit number is a float."""
    return int(digits) if len(digits) < 19 else float(digits)


def objects(value: object) -> list[dict[str, Any]]:
    """The objects in what should be a list of them."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def member(value: object, name: str) -> dict[str, Any]:
    """The object in a member, empty where there is none."""
    inner = value.get(name) if isinstance(value, dict) else None
    return inner if isinstance(inner, dict) else {}


def text(value: object) -> str:
    return value if isinstance(value, str) else ""


_MOST = 10**12
"""Tokens; a larger number is no count, and sums of such would not fit into a database."""


def count(value: object) -> int:
    """A number of tokens, or an index; 0 where it is none."""
    return value if type(value) is int and 0 < value <= _MOST else 0


def counts(value: dict[str, Any], names: dict[str, str]) -> dict[str, int]:
    """The token kinds that a provider reported: its name to ours."""
    return {ours: count(value[theirs]) for theirs, ours in names.items() if type(value.get(theirs)) is int}


def arguments_of(raw: object) -> Any:
    """Tool arguments, parsed where they are JSON, else as they are. None at all are an empty object."""
    if not isinstance(raw, str):
        return raw
    if not raw.strip():
        return {}
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return raw


def error_text(value: object) -> str:
    """What the record says of a provider's error object or string."""
    if isinstance(value, dict):
        words = [text(value.get("type")) or text(value.get("code")), text(value.get("message"))]
        value = ": ".join(word for word in words if word)
    return text(value) or "the upstream reported an error without a message"
