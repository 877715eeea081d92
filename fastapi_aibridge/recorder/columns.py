"""The column names of the recorder's tables, derived from the dataclasses of the records."""

from __future__ import annotations

from dataclasses import fields

from .records import Interception, Prompt, Thought, TokenUsage, ToolUsage

BEGUN = tuple(field.name for field in fields(Interception))
"""The members of a start. New members must come last: inbox rows of an older release end before them."""

BEGUN_TYPES = {field.name: str(field.type) for field in fields(Interception)}
"""The annotation of each member, as text."""

START_COLUMNS = (BEGUN[0], "recorder_id", *BEGUN[1:])
"""The columns that are known at the start, in the order of the writer's rows."""

TOKEN_COLUMNS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")

SUM_COLUMNS = (*TOKEN_COLUMNS, "cost")
"""The columns that usage aggregates add up. `cost` may be null."""

STATE_COLUMNS = ("status", "ended_at", "upstream_status", "error", *TOKEN_COLUMNS, "cost", "cost_estimated")
"""The columns that the end sets."""

END_COLUMNS = ("id", *STATE_COLUMNS, "credential_hint", "truncated")
"""The id, the columns that the end sets, and the columns of the start that it may change."""

FILED_COLUMNS = (*START_COLUMNS, *STATE_COLUMNS)
"""All columns of an interception's row except its primary key."""

INBOX_COLUMNS = ("recorder_id", "number", "body")

FACT_COLUMNS = ("interception_id", "part", "body")

OBJECT_COLUMNS = ("provider", "object_id", "kind", "initiator_id", "interception_id", "noted_at")

SET_ASIDE_COLUMNS = ("recorder_id", "kind", "reason", "body", "set_aside_at")

FACT_TYPES: dict[str, type[TokenUsage | Prompt | ToolUsage | Thought]] = {
    "token_usages": TokenUsage,
    "prompts": Prompt,
    "tool_usages": ToolUsage,
    "thoughts": Thought,
}
"""The members of `Facts` that are stored, with the type of their entries."""
