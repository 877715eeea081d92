"""Usage aggregates: calls, tokens and cost of interceptions, by day, initiator, model and other keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from ..budget import usd
from .columns import TOKEN_COLUMNS
from .recorder import InterceptionFilter


class UsageBy(StrEnum):
    DAY = "day"
    """The day in UTC on which the interception started."""
    INITIATOR = "initiator_id"
    PROVIDER = "provider"
    MODEL = "model"
    CLIENT = "client"
    SESSION = "session_id"
    AGENT = "agent_id"
    GROUP = "group"
    """An interception counts for each group of its principal; without groups, it counts for the group None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageQuery(InterceptionFilter):
    """A query for usage aggregates. Without `by` there is one row, the total."""

    by: tuple[UsageBy, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """The sums of one group; keys that the query did not group by are None."""

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
    """Micro-dollars; None if no call of the group has a price."""


@runtime_checkable
class UsageStore(Protocol):
    """A recorder that can aggregate usage."""

    async def usage(self, query: UsageQuery) -> list[UsageRow]:
        """Return a row for each group, in the order of their keys; running interceptions count as calls."""


Key = tuple[date | str | None, ...]
"""The key of a group, its values in the order of `UsageQuery.by`."""
Sums = list[int | None]
"""The number of calls, then the sums of `SUM_COLUMNS`; the last one, the cost, may be None."""


def no_sums() -> Sums:
    return [0, 0, 0, 0, 0, None]


def add_sums(sums: Sums, more: Sequence[int | None]) -> None:
    for place, number in enumerate(more):
        if number is not None:
            sums[place] = (sums[place] or 0) + number


def usage_rows(query: UsageQuery, sums: Mapping[Key, Sums]) -> list[UsageRow]:
    """Return a row for each group, in the order of their keys; a query without `by` always has one row."""
    groups: Mapping[Key, Sums] = {(): no_sums()} if not query.by and not sums else sums
    return [usage_row(query, key, groups[key]) for key in sorted(groups, key=lambda key: tuple(map(_sorted, key)))]


def _sorted(value: date | str | None) -> str:
    return "" if value is None else str(value)


def usage_row(query: UsageQuery, key: Key, sums: Sequence[int | None]) -> UsageRow:
    """Return the row of a group. The key is in the order of `query.by`, the sums are in the order of `UsageRow`."""
    calls, *tokens, cost = sums
    members: dict[str, Any] = dict(zip([by.value for by in query.by], key, strict=True))
    members |= {name: count or 0 for name, count in zip(TOKEN_COLUMNS, tokens, strict=True)}
    return UsageRow(**members, calls=calls or 0, cost=cost)


def usage_json(query: UsageQuery, row: UsageRow) -> dict[str, str | int | float | None]:
    """Return the row as plain JSON values: the keys in the query's order, then the sums."""
    keys: dict[str, str | int | float | None] = {}
    for by in query.by:
        value = getattr(row, by.value)
        keys[by.value] = value.isoformat() if isinstance(value, date) else value
    counts = {name: getattr(row, name) for name in ("calls", *TOKEN_COLUMNS)}
    return keys | counts | {"cost_usd": usd(row.cost)}
