"""Conversion of records to rows: the values that the tables hold for a start and an end."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from .bounds import LIMITS, bounded, bounded_ending, groups_text, metadata_text
from .columns import BEGUN, END_COLUMNS, FILED_COLUMNS, START_COLUMNS
from .cursor import to_microseconds
from .records import Ending, Interception, TokenUsage
from .text import cut_key, dump, load

Tokens = tuple[int, int, int, int]
"""Counts of input, output, cache read and cache write tokens."""

NO_TOKENS: Tokens = (0, 0, 0, 0)
_RUNNING = ("running", None, None, None, *NO_TOKENS, None, None)
"""The values of `STATE_COLUMNS` for a running interception."""

_MAX = 2**63 - 1
_METADATA, _STARTED_AT, _HINT, _TRUNCATED, _GROUPS = map(
    START_COLUMNS.index, ("metadata", "started_at", "credential_hint", "truncated", "groups")
)
_members = attrgetter(*BEGUN)


def start_row(begun: Interception, recorder_id: str) -> tuple[Any, ...]:
    """Return the values of `START_COLUMNS`. Raises `TypeError` for members of a wrong type."""
    begun = bounded(begun)
    first, *rest = _members(begun)
    row = [first, recorder_id, *rest]
    row[_METADATA], cut_metadata = metadata_text(begun.metadata)
    row[_STARTED_AT] = to_microseconds(begun.started_at)
    row[_GROUPS], cut_groups = groups_text(begun.groups)
    if cut_metadata or cut_groups:
        row[_TRUNCATED] = True
    return tuple(row)


def inbox_row(recorder_id: str, number: int, row: tuple[Any, ...]) -> tuple[str, int, str]:
    """Return the values of `INBOX_COLUMNS` for a row of `START_COLUMNS`."""
    return recorder_id, number, dump(row)


def end_row(interception_id: str, ending: Ending, tokens: Tokens, *, truncated: bool = False) -> tuple[Any, ...]:
    """Return the values of `END_COLUMNS`. `truncated` says that facts were left out."""
    status = ending.upstream_status
    ending, is_cut = bounded_ending(ending)
    return (
        cut_key(interception_id, LIMITS["id"]),
        str(ending.status),
        to_microseconds(ending.ended_at),
        status if status is None or 0 <= status < 2**31 else None,
        ending.error,
        *tokens,
        ending.cost if ending.cost is None else max(0, min(ending.cost, _MAX)),
        None if ending.cost is None else ending.cost_estimated,
        ending.credential_hint,
        truncated or is_cut,
    )


def filed_row(start: tuple[Any, ...], end: tuple[Any, ...] | None) -> tuple[Any, ...]:
    """Return the values of `FILED_COLUMNS` for a row of `START_COLUMNS` and one of `END_COLUMNS` (None if it runs)."""
    if end is None:
        return start + _RUNNING
    _, *state, hint, truncated = end
    if truncated or (hint is not None and hint != start[_HINT]):
        changed = list(start)
        changed[_HINT] = start[_HINT] if hint is None else hint
        changed[_TRUNCATED] = truncated or start[_TRUNCATED]
        start = tuple(changed)
    return (*start, *state)


_BARE = {"user_agent": None, "correlating_tool_call_id": None, "metadata": "{}", "error": None, "truncated": True}
_COLUMNS = {"filed": FILED_COLUMNS, "ends": END_COLUMNS}


def bare_row(kind: str, row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return an interception's or end's row without its free texts; rows of other kinds unchanged."""
    columns = _COLUMNS.get(kind, ())
    return tuple(_BARE.get(name, value) for name, value in zip(columns, row, strict=True)) if columns else row


def add_tokens(tokens: Tokens, usages: Sequence[TokenUsage]) -> Tokens:
    """Return the sums with these usages added, limited to the range of a column."""
    if not usages:
        return tokens
    given, made, read, written = tokens
    for usage in usages:
        given += usage.input_tokens
        made += usage.output_tokens
        read += usage.cache_read_tokens
        written += usage.cache_write_tokens
    if max(given, made, read, written) > _MAX or min(given, made, read, written) < 0:
        return tuple(max(0, min(total, _MAX)) for total in (given, made, read, written))  # type: ignore[return-value]
    return given, made, read, written


def cost_of(costs: Sequence[int | None]) -> int | None:
    """Return the sum of the messages' costs; None if one of them is None or there are none."""
    known = [cost for cost in costs if cost is not None]
    return sum(known) if known and len(known) == len(costs) else None


_START_DEFAULTS: dict[str, Any] = {
    "agent_id": None,
    "parent_agent_id": None,
    "truncated": False,
    "groups": None,
    "upstream_model": None,
}


def inbox_start(body: str) -> dict[str, Any]:
    """Return the values of `START_COLUMNS` by name, cut to their limits. An older release may have written fewer and
    longer values, a newer one more. Raises `ValueError`, `TypeError` and the like for a body that is no start.
    """
    start = _START_DEFAULTS | dict(zip(START_COLUMNS, load(body), strict=False))
    for name, limit in LIMITS.items():
        text = start[name]
        if text is not None:
            start[name] = cut_key(text, limit)
            start["truncated"] = start["truncated"] or start[name] != text
    return start
