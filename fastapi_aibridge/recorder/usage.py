"""Aggregates over interceptions: how many calls and tokens at which cost, by day, initiator, model and so on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from .jsonform import usd
from .recorder import InterceptionFilter


class UsageBy(StrEnum):
    DAY = "day"
    """The day, in UTC, on which the interception started."""
    INITIATOR = "initiator_id"
    PROVIDER = "provider"
    MODEL = "model"
    CLIENT = "client"
    SESSION = "session_id"
    AGENT = "agent_id"
    GROUP = "group"
    """An interception counts for each group that its principal belonged to, and for none where that had none."""


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
    session_id: str | None = None
    agent_id: str | None = None
    group: str | None = None
    calls: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cost: int | None = None
    """Micro-dollars; None where no call of the group has a price."""


@runtime_checkable
class UsageStore(Protocol):
    """A recorder that can add up what it holds."""

    async def usage(self, query: UsageQuery) -> list[UsageRow]:
        """The groups, in the order of their keys; calls that still run count as calls."""


Key = tuple[date | str | None, ...]
"""What a group has in common, in the order of `UsageQuery.by`."""
Sums = list[int | None]
"""Calls, and what `SUM_COLUMNS` are, of which the last, the cost, may be None."""


def no_sums() -> Sums:
    return [0, 0, 0, 0, 0, None]


def add_sums(sums: Sums, more: Sequence[int | None]) -> None:
    for place, number in enumerate(more):
        if number is not None:
            sums[place] = (sums[place] or 0) + number


def usage_rows(query: UsageQuery, sums: Mapping[Key, Sums]) -> list[UsageRow]:
    """A row for each group, in the order of their keys; without groups there is one row at least."""
    groups: Mapping[Key, Sums] = {(): no_sums()} if not query.by and not sums else sums
    return [usage_row(query, key, groups[key]) for key in sorted(groups, key=lambda key: tuple(map(_sorted, key)))]


def _sorted(value: date | str | None) -> str:
    return "" if value is None else str(value)


def usage_row(query: UsageQuery, key: Key, sums: Sequence[int | None]) -> UsageRow:
    """The row of a group: its key in the order of `query.by`, its sums in the order of `UsageRow`."""
    names = [by.value for by in query.by]
    keys: dict[str, Any] = dict(zip(names, key, strict=True))
    calls, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cost = sums
    return UsageRow(
        **keys,
        calls=calls or 0,
        input_tokens=input_tokens or 0,
        output_tokens=output_tokens or 0,
        cache_read_tokens=cache_read_tokens or 0,
        cache_write_tokens=cache_write_tokens or 0,
        cost=cost,
    )


def usage_json(query: UsageQuery, row: UsageRow) -> dict[str, str | int | float | None]:
    """The row as plain JSON values: the members grouped by, in the query's order, then the sums."""
    keys: dict[str, str | int | float | None] = {}
    for by in query.by:
        value = getattr(row, by.value)
        keys[by.value] = value.isoformat() if isinstance(value, date) else value
    return keys | {
        "calls": row.calls,
        "input_tokens": row.input_tokens,
        "output_tokens": row.output_tokens,
        "cache_read_tokens": row.cache_read_tokens,
        "cache_write_tokens": row.cache_write_tokens,
        "cost_usd": usd(row.cost),
    }
