"""Resolves `$ref` within one schema. Some providers know no references, and none follows one to another document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

MAX_LENGTH = 512


def referred(root: Mapping[str, Any], reference: object) -> Mapping[str, Any] | None:
    """Return the schema that a reference leads to; None where that is outside the document or no schema."""
    if not isinstance(reference, str) or not reference.startswith("#") or len(reference) > MAX_LENGTH:
        return None
    place: Any = root
    for step in filter(None, unquote(reference[1:]).split("/")):
        step = step.replace("~1", "/").replace("~0", "~")
        if isinstance(place, Mapping):
            place = place.get(step)
        elif isinstance(place, list) and step.isdecimal() and len(step) < 6 and int(step) < len(place):
            place = place[int(step)]
        else:
            return None
    return place if isinstance(place, Mapping) else None
