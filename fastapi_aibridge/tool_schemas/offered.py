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
"""Bytes of one as its tool declares it; a larger one is not looked into."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedSchema:
    schema: Mapping[str, Any]
    own_names: Mapping[str, str] = field(default_factory=dict)
    """The tool's own names of properties that are offered under another one."""
    remarks: tuple[str, ...] = ()
    """What was changed that changes the meaning."""


def offered_schema(schema: Mapping[str, Any]) -> OfferedSchema:
    """The schema in the form that all providers take: valid by draft 2020-12, and an object at the top."""
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
    """In bytes; more than any limit where it is nested too deeply to be written."""
    try:
        return len(orjson.dumps(schema))
    except TypeError:
        return MAX_RAW_SIZE + 1
