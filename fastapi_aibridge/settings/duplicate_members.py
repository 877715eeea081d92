"""Finds members that occur twice in JSON: parsers differ in which of the values they keep."""

from __future__ import annotations

import json
from typing import Any


def duplicate_members(text: str | bytes) -> list[str]:
    """Return the names of members that an object has twice, at any depth. Raises `ValueError` and `RecursionError` for
    what is no JSON.
    """
    twice: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                twice.append(name)
            seen.add(name)

    json.loads(text, object_pairs_hook=note, parse_int=str, parse_float=str)
    return twice
