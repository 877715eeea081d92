"""The query parameters of the admin routes."""

from __future__ import annotations

import difflib
from collections import Counter
from datetime import datetime
from typing import Annotated, Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, model_validator

from ..fastapi_inside import query_names
from ..recorder.export import ExportFormat
from ..recorder.usage import UsageBy

MOST_PROBLEMS = 10
"""Problems of one request that a 422 lists."""
REPEATABLE = frozenset({"by"})
"""Parameters that may be repeated."""


class _Query(BaseModel):
    """Query parameters. One with an empty value counts as not set."""

    @model_validator(mode="before")
    @classmethod
    def _empty_is_unset(cls, values: Any) -> Any:
        # Many HTTP clients write `cursor=` for a cursor that is None.
        return {name: value for name, value in values.items() if value != ""} if isinstance(values, dict) else values


class Paging(_Query):
    limit: Annotated[int, Field(ge=1, le=500)] = 50
    cursor: str | None = None


class BudgetListing(Paging):
    limit: Annotated[int, Field(ge=1, le=500)] = 100


class OwnFilters(_Query):
    """A selection of the caller's interceptions. Time ranges are half open."""

    provider: str | None = None
    model: str | None = None
    session_id: str | None = None
    started_after: datetime | None = None
    started_before: datetime | None = None


class OwnListing(Paging, OwnFilters):
    pass


class OwnSummary(OwnFilters):
    by: list[UsageBy] = []


class Filters(OwnFilters):
    """A selection of interceptions. Time ranges are half open."""

    initiator_id: str | None = None


# One model for all of a route's query: older FastAPI takes a model beside other parameters for one named `chosen`.


class Listing(Paging, Filters):
    pass


class AuditListing(Paging):
    object: str | None = None


class ClientKeyListing(Paging):
    initiator_id: str | None = None


class Export(Filters):
    format: ExportFormat = ExportFormat.JSONL


class Summary(Filters):
    by: list[UsageBy] = []


async def refuse_unknown_parameters(request: Request) -> None:
    """Answer 422 for a parameter that the route does not have, or that is repeated where it must not be.

    A misspelled filter would otherwise be ignored, and return everybody's records.
    """
    if not request.url.query:
        return
    known = query_names(request.scope)
    problems: list[dict[str, Any]] = []
    for name, times in Counter(name for name, _ in request.query_params.multi_items()).items():
        if len(problems) == MOST_PROBLEMS:
            break
        if name not in known:
            near = difflib.get_close_matches(name[:64], sorted(known), n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]}?" if near else ""
            problems.append(_problem("extra_forbidden", name, f"there is no such parameter{hint}"))
        elif times > 1 and name not in REPEATABLE:
            problems.append(_problem("too_long", name, "this parameter may be given once only"))
    if problems:
        raise RequestValidationError(problems)


def _problem(type_: str, name: str, message: str) -> dict[str, Any]:
    return {"type": type_, "loc": ("query", name[:64]), "msg": message}
