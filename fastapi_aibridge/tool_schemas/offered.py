"""The schema of one tool as it is offered to models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from .repair import Repair

MAX_SIZE = 64 * 1024
"""Bytes of one schema. A larger one is offered without descriptions, or without parameters."""
MAX_RAW_SIZE = 4 * MAX_SIZE
"""Bytes of a schema as its tool declares it; a larger one is not examined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedSchema:
    schema: Mapping[str, Any]
    own_names: Mapping[str, str] = field(default_factory=dict)
    """The tool's own names of properties, by the names under which they are offered."""
    remarks: tuple[str, ...] = ()
    """Changes that alter the schema's meaning, for the log."""


def offered_schema(schema: Mapping[str, Any]) -> OfferedSchema:
    """Return the schema in the form that all providers accept: valid by draft 2020-12, and an object at the top."""
    for plain in (False, True) if _size(schema) <= MAX_RAW_SIZE else ():
        repair = Repair(schema, plain=plain)
        offered = repair.top()
        if _size(offered) <= MAX_SIZE:
            too_large = (f"it is larger than {MAX_SIZE} bytes and has lost its descriptions",) if plain else ()
            return OfferedSchema(schema=offered, own_names=repair.own_names, remarks=(*too_large, *repair.remarks))
    return OfferedSchema(
        schema={"type": "object", "properties": {}},
        remarks=(f"it is larger than {MAX_SIZE} bytes and is offered without parameters",),
    )


def _size(schema: Mapping[str, Any]) -> int:
    """Return the schema's size in bytes; above any limit where it is nested too deeply to be serialized."""
    try:
        return len(orjson.dumps(schema))
    except TypeError:
        return MAX_RAW_SIZE + 1
