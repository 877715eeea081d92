"""The tool parameters that providers refuse, according to their documentation and public reports."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs

TYPES = {"string", "number", "integer", "boolean", "object", "array", "null"}
KNOWN = {
    "type", "title", "description", "default", "enum", "anyOf", "properties", "required", "additionalProperties",
    "items", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength",
    "pattern", "format", "minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties",
}  # fmt: skip


def refusals(schema: Any) -> list[str]:
    """Return the reasons for which some provider would refuse a request with this tool; empty if all accept it."""
    found = []
    if not isinstance(schema, dict) or schema.get("type") != "object" or not isinstance(schema.get("properties"), dict):
        return ["all: it is no object with properties"]
    if schema.keys() & {"oneOf", "anyOf", "allOf", "not", "enum"}:
        found.append("OpenAI: alternatives at the top")
    try:
        jsonschema_rs.Draft202012Validator(schema)
    except (ValueError, jsonschema_rs.ValidationError) as error:
        found.append(f"Anthropic: no valid schema of draft 2020-12: {error}")
    for depth, one in _schemas(schema):
        if depth > 11:
            found.append("OpenAI: more than 10 levels")
        if one.keys() - KNOWN:
            found.append(f"Gemini: unknown keywords {sorted(one.keys() - KNOWN)}")
        kind = one.get("type")
        if kind is not None and (not isinstance(kind, str) or kind not in TYPES):
            found.append(f"OpenAI, Gemini: the type {kind!r}")
        if kind == "array" and not isinstance(one.get("items"), dict):
            found.append("OpenAI: array schema missing items")
        names = one.get("properties", {})
        found += [
            f"Anthropic: the property {name!r}" for name in names if not re.fullmatch(r"[a-zA-Z0-9_.-]{1,64}", name)
        ]
        if not set(one.get("required", ())) <= set(names):
            found.append("Gemini: required names no property")
        if one.get("format") not in (None, "date-time"):
            found.append(f"Gemini: the format {one['format']!r}")
        if "enum" in one and (not one["enum"] or len(one["enum"]) > 1000):
            found.append("OpenAI: an enumeration of no values, or of too many")
    return found


def _schemas(schema: dict[str, Any], depth: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    yield depth, schema
    for one in schema.get("properties", {}).values():
        yield from _schemas(one, depth + 1)
    for one in schema.get("anyOf", ()):
        yield from _schemas(one, depth)
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield from _schemas(schema[name], depth + 1)
