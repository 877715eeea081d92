"""Keywords that describe a value of one type: their valid forms, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from .visible_text import clean

MAX_DESCRIPTION = 4096
"""Characters of one property's description."""
MAX_PATTERN = 512
MAX_ENUM = 256
"""Values of an enumeration; a longer one is left out."""
MAX_ENUM_SIZE = 8192
"""Bytes of an enumeration's JSON."""
MAX_DEFAULT = 1024
"""Bytes of a default's JSON."""

TYPES = {"string", "number", "integer", "boolean", "object", "array", "null"}
_ALIASES = {
    "str": "string",
    "text": "string",
    "int": "integer",
    "float": "number",
    "double": "number",
    "bool": "boolean",
    "dict": "object",
    "map": "object",
    "list": "array",
    "none": "null",
}


def type_named(name: object) -> str | None:
    """Return the JSON type of this name, also for its names in programming languages; None where there is none."""
    if not isinstance(name, str):
        return None
    lower = name.lower()
    return lower if lower in TYPES else _ALIASES.get(lower)


def types_of(schema: Mapping[str, Any]) -> list[str]:
    """Return the types that a schema names or implies, each once; empty where any type is allowed."""
    named = schema.get("type")
    found = [type_named(one) for one in (named[:16] if isinstance(named, list) else [named])]
    types = list(dict.fromkeys(one for one in found if one is not None))
    if not types:
        if isinstance(schema.get("properties"), Mapping):
            types = ["object"]
        elif "items" in schema or "prefixItems" in schema:
            types = ["array"]
    if types and schema.get("nullable") is True and "null" not in types:
        types.append("null")
    return types


def described(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return title, description and default. Keywords that providers would refuse become part of the description."""
    kept: dict[str, Any] = {}
    if title := clean(schema.get("title"), 256):
        kept["title"] = title
    description = clean(schema.get("description"), MAX_DESCRIPTION)
    hints = [f"{name}: {hint}" for name in ("format", "pattern") if (hint := _described(schema, name))]
    examples = schema.get("examples")
    if isinstance(examples, list) and examples and (shown := _encoded(examples[:3], 256)):
        hints.append(f"examples: {clean(shown, 256)}")
    if hints:
        description = f"{description} ({'; '.join(hints)})".strip()
    if description:
        kept["description"] = description
    if "default" in schema and _encoded(schema["default"], MAX_DEFAULT):
        kept["default"] = schema["default"]
    return kept


def enumeration(schema: Mapping[str, Any], types: Sequence[str]) -> list[Any] | None:
    """Return the values of `enum` or `const` that are scalars of these types; None where there are none or too many."""
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if not isinstance(values, list) or not 0 < len(values) <= MAX_ENUM:
        return None
    fitting = [value for value in values if not isinstance(value, dict | list) and _is_one_of(value, types)]
    unique = list({(type(value), value): value for value in fitting}.values())
    return unique if unique and _encoded(unique, MAX_ENUM_SIZE) else None


def constraints(schema: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return the keywords that limit a value of one type: scalars, and the sizes of lists and objects."""
    kept: dict[str, Any] = {}
    for name in _SIZES.get(kind, ()):
        value = _number(schema, name)
        if value is not None and 0 <= value < 2**53 and value == int(value):
            kept[name] = int(value)
    if kind in ("number", "integer"):
        kept.update(_range(schema))
    elif kind == "string":
        if schema.get("format") == "date-time":
            kept["format"] = "date-time"
        if _is_plain_pattern(pattern := schema.get("pattern")):
            kept["pattern"] = pattern
    elif kind == "array" and schema.get("uniqueItems") is True:
        kept["uniqueItems"] = True
    return kept


_SIZES = {
    "string": ("minLength", "maxLength"),
    "array": ("minItems", "maxItems"),
    "object": ("minProperties", "maxProperties"),
}


def _range(schema: Mapping[str, Any]) -> dict[str, Any]:
    kept = {}
    for name, older in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        for keyword in (name, older):
            if (value := _number(schema, keyword)) is not None:
                kept[keyword] = value
        if schema.get(older) is True and name in kept:  # as in drafts up to 4
            kept[older] = kept.pop(name)
    multiple = _number(schema, "multipleOf")
    if multiple is not None and multiple > 0:
        kept["multipleOf"] = multiple
    return kept


def _number(schema: Mapping[str, Any], name: str) -> int | float | None:
    value = schema.get(name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _is_one_of(value: Any, types: Sequence[str]) -> bool:
    if value is None:
        return "null" in types
    if not types or types == ["null"]:
        return True
    if isinstance(value, bool):
        return "boolean" in types
    if isinstance(value, str):
        return "string" in types
    return "number" in types or ("integer" in types and bool(value == int(value)))


def _is_plain_pattern(pattern: object) -> bool:
    """Whether all engines read the pattern alike: some refuse a group that begins with `?`."""
    if not isinstance(pattern, str) or not 0 < len(pattern) <= MAX_PATTERN or "(?" in pattern:
        return False
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError):
        return False
    return True


def _described(schema: Mapping[str, Any], name: str) -> str:
    value = schema.get(name)
    if not isinstance(value, str) or value == "date-time" or (name == "pattern" and _is_plain_pattern(value)):
        return ""
    return clean(value, 128)


def _encoded(value: object, limit: int) -> str:
    """Return the value's JSON; empty where that is longer than `limit` bytes or impossible."""
    try:
        encoded = orjson.dumps(value)
    except TypeError:
        return ""
    return encoded.decode() if len(encoded) <= limit else ""
