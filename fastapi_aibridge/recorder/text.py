"""Conversion of texts and values so that a database can store them: no value may make a row impossible to store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from hashlib import sha256
from typing import Any, TypeVar

import orjson

_T = TypeVar("_T")
_DIGEST = 32


def storable(value: _T) -> _T:
    """Replace what databases refuse in a text: NUL and lone surrogates. Other values are returned unchanged."""
    if not isinstance(value, str) or (value.isascii() and "\0" not in value):
        return value
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()  # type: ignore[return-value]


def cut(text: str, limit: int) -> str:
    """Cut the text to `limit` bytes of UTF-8."""
    if len(text) * 4 <= limit:
        return text
    if len(text) <= limit:
        encoded = text.encode("utf-8", "replace")
        if len(encoded) <= limit:
            return text
    else:
        encoded = text[:limit].encode("utf-8", "replace")
    return encoded[:limit].decode("utf-8", "ignore")


def cut_key(text: str, limit: int) -> str:
    """Make the text storable in `limit` bytes. A longer one ends with its digest, so different keys stay different."""
    text = storable(text)
    if len(text) * 4 <= limit or (len(text) <= limit and len(text.encode()) <= limit):
        return text
    digest = sha256(text.encode()).hexdigest()[:_DIGEST]
    return f"{cut(text, limit - _DIGEST - 1)}~{digest}"


def dump(value: object) -> str:
    """Return any value as JSON text. Values that JSON lacks are converted or replaced, so that no record is lost."""
    return dump_bytes(value).decode()


def dump_bytes(value: object) -> bytes:
    """Like `dump`, as UTF-8."""
    try:
        return orjson.dumps(value, default=_plain)
    except (TypeError, ValueError, RecursionError):
        pass
    try:
        text = json.dumps(value, default=_plain, ensure_ascii=False)
        return text.encode("utf-8", "replace").replace(b"\0", b"")
    except (TypeError, ValueError, RecursionError):
        return b"null"


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "__dataclass_fields__"):
        return {field.name: getattr(value, field.name) for field in fields(value)}  # type: ignore[arg-type]
    return str(value)


def load(text: str) -> Any:
    """Parse JSON text. Raises `ValueError` and `RecursionError`."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)
