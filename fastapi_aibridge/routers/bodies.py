"""The JSON bodies of admin requests, before they are parsed into what a route takes."""

from __future__ import annotations

from fastapi import Request
from fastapi.exceptions import RequestValidationError

from ..settings.duplicate_members import duplicate_members


async def refuse_duplicate_members(request: Request) -> None:
    """Answer 422 for a JSON object, at any depth, that has a member twice: a reviewer may have seen another value than
    would be in force.
    """
    try:
        twice = duplicate_members(await request.body())
    except (ValueError, RecursionError):
        return  # the route reports that this is no JSON
    if twice:
        raise RequestValidationError(
            [{"type": "duplicate_member", "loc": ("body", name), "msg": "this member occurs twice"} for name in twice]
        )
