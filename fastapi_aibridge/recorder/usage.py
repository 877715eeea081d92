"""Aggregates over interceptions: how many calls and tokens, by day, initiator, provider, model or client."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from .recorder import InterceptionFilter


class UsageBy(StrEnum):
    DAY = "day"
    """The day, in UTC, on which the interception started."""
    INITIATOR = "initiator_id"
    PROVIDER = "provider"
    MODEL = "model"
    CLIENT = "client"


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageQuery(InterceptionFilter):
    """What to add up; without `by` there is one row, the sum of all."""

    by: tuple[UsageBy, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """One group; members that the query did not group by are None."""

    day: date | None = None
    initiator_id: str | None = None
    provider: str | None = None
    model: str | None = None
    client: str | None = None
    calls: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int


@runtime_checkable
class UsageStore(Protocol):
    """A recorder that can add up what it holds."""

    async def usage(self, query: UsageQuery) -> list[UsageRow]:
        """The groups, in the order of their keys; calls that still run count as calls."""


def usage_row(query: UsageQuery, key: Sequence[date | str], sums: Sequence[int]) -> UsageRow:
    """The row of a group: its key in the order of `query.by`, its sums in the order of `UsageRow`."""
    names = [by.value for by in query.by]
    keys: dict[str, Any] = dict(zip(names, key, strict=True))
    calls, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens = sums
    return UsageRow(
        **keys,
        calls=calls,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cache_read_tokens=cache_read_tokens,
        cache_write_tokens=cache_write_tokens,
    )


def usage_json(query: UsageQuery, row: UsageRow) -> dict[str, str | int | None]:
    """The row as plain JSON values: the members grouped by, in the query's order, then the sums."""
    keys: dict[str, str | int | None] = {}
    for by in query.by:
        value = getattr(row, by.value)
        keys[by.value] = value.isoformat() if isinstance(value, date) else value
    return keys | {
        "calls": row.calls,
        "input_tokens": row.input_tokens,
        "output_tokens": row.output_tokens,
        "cache_read_tokens": row.cache_read_tokens,
        "cache_write_tokens": row.cache_write_tokens,
    }
