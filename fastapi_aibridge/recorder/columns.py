"""The columns of an interception, read off the records' dataclasses."""

from __future__ import annotations

from dataclasses import fields

from .records import Interception, Prompt, Thought, TokenUsage, ToolUsage

BEGUN = tuple(field.name for field in fields(Interception))
"""What a start says. New members come last: the inbox of an older release has rows without them."""

BEGUN_TYPES = {field.name: str(field.type) for field in fields(Interception)}
"""Each member's annotation, as it is written."""

START_COLUMNS = (BEGUN[0], "recorder_id", *BEGUN[1:])
"""What is known at the start, in the order of the rows that the writer makes."""

TOKEN_COLUMNS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")

SUM_COLUMNS = (*TOKEN_COLUMNS, "cost")
"""What is added up over interceptions. `cost` may be null."""

STATE_COLUMNS = ("status", "ended_at", "upstream_status", "error", *TOKEN_COLUMNS, "cost", "cost_estimated")
"""What the end adds."""

END_COLUMNS = ("id", *STATE_COLUMNS, "credential_hint", "truncated")
"""What the end adds and, after that, what it may change of the start, behind the id it belongs to."""

FILED_COLUMNS = (*START_COLUMNS, *STATE_COLUMNS)
"""All of an interception's row but its key."""

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
"""What the members of `Facts` that belong to the record are lists of."""
