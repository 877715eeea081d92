"""The JSON bodies of admin requests, before they are parsed into what a route takes."""

from __future__ import annotations

import json
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError


async def refuse_duplicate_members(request: Request) -> None:
    """Answer 422 for a JSON object, at any depth, that has a member twice.

    Parsers differ in which of the values they keep, so a reviewer may have seen another one than would be in force.
    """
    body = await request.body()
    twice: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                twice.append(name)
            seen.add(name)

    try:
        json.loads(body, object_pairs_hook=note, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return  # the route reports that this is no JSON
    if twice:
        raise RequestValidationError(
            [{"type": "duplicate_member", "loc": ("body", name), "msg": "this member occurs twice"} for name in twice]
        )
