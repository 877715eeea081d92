"""The tables of the SQL recorder. Moments are microseconds since 1970 in UTC, days are days since then.

A start comes into the inbox and moves to its place a moment later. What an interception is stands in one narrow row;
everything that its messages showed (and so all content) stands beside it as JSON, one row for each time that facts
came in.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, MetaData, Table, Text, false, text

metadata = MetaData()

_Key = BigInteger().with_variant(Integer, "sqlite")
_RUNNING = text("status = 'running'")
_IN_SESSION = text("session_id IS NOT NULL")

interceptions = Table(
    "aibridge_interceptions",
    metadata,
    # A narrow key of the database's own keeps every index half as wide as the id would make it.
    Column("seq", _Key, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False),
    Column("recorder_id", Text, nullable=False),
    Column("initiator_id", Text, nullable=False),
    Column("api_key_id", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("provider_type", Text, nullable=False),
    Column("route", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("streaming", Boolean, nullable=False),
    Column("client", Text, nullable=False),
    Column("user_agent", Text),
    Column("session_id", Text),
    Column("correlating_tool_call_id", Text),
    Column("credential_kind", Text, nullable=False),
    Column("credential_hint", Text),
    Column("metadata", Text, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("ended_at", BigInteger),
    Column("upstream_status", Integer),
    Column("error", Text),
    Column("input_tokens", BigInteger, nullable=False, server_default="0"),
    Column("output_tokens", BigInteger, nullable=False, server_default="0"),
    Column("cache_read_tokens", BigInteger, nullable=False, server_default="0"),
    Column("cache_write_tokens", BigInteger, nullable=False, server_default="0"),
    Column("agent_id", Text),
    Column("parent_agent_id", Text),
    Column("truncated", Boolean, nullable=False, server_default=false()),
    Index("aibridge_interceptions_id", "id", unique=True),
    Index("aibridge_interceptions_started", "started_at"),
    Index("aibridge_interceptions_initiator", "initiator_id", "started_at"),
    Index("aibridge_interceptions_provider", "provider", "started_at"),
    Index("aibridge_interceptions_model", "model", "started_at"),
    Index(
        "aibridge_interceptions_session",
        "session_id",
        "started_at",
        sqlite_where=_IN_SESSION,
        postgresql_where=_IN_SESSION,
    ),
    Index("aibridge_interceptions_running", "recorder_id", sqlite_where=_RUNNING, postgresql_where=_RUNNING),
)

inbox = Table(
    "aibridge_inbox",
    metadata,
    # Each recorder's own, so that what it filed leaves as one range.
    Column("recorder_id", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("body", Text, nullable=False),
    sqlite_with_rowid=False,
)

facts = Table(
    "aibridge_facts",
    metadata,
    Column("seq", _Key, primary_key=True, autoincrement=True),
    Column("interception_id", Text, nullable=False),
    # Tells the rows of one interception apart and orders them; a batch that is written twice changes nothing.
    Column("part", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
    Index("aibridge_facts_interception", "interception_id", "part", unique=True),
)

objects = Table(
    "aibridge_objects",
    metadata,
    # What a provider made and keeps, and for whom.
    Column("provider", Text, primary_key=True),
    Column("object_id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("initiator_id", Text, nullable=False),
    Column("interception_id", Text),
    Column("noted_at", BigInteger, nullable=False),
    Index("aibridge_objects_initiator", "initiator_id"),
    Index("aibridge_objects_noted", "noted_at"),
)

set_aside = Table(
    "aibridge_set_aside",
    metadata,
    # Rows that no other table took, as JSON, for a person to look at.
    Column("seq", _Key, primary_key=True, autoincrement=True),
    Column("recorder_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("set_aside_at", BigInteger, nullable=False),
    Index("aibridge_set_aside_at", "set_aside_at"),
)

recorders = Table(
    "aibridge_recorders",
    metadata,
    Column("id", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("process_started", Text, nullable=False),
    # By the database's clock, so that machines need not agree on the time.
    Column("heartbeat_at", BigInteger, nullable=False),
)

usage_days = Table(
    "aibridge_usage_days",
    metadata,
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("sealed", Boolean, nullable=False),
)

usage_daily = Table(
    "aibridge_usage_daily",
    metadata,
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("initiator_id", Text, primary_key=True),
    Column("provider", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("client", Text, primary_key=True),
    Column("calls", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cache_read_tokens", BigInteger, nullable=False),
    Column("cache_write_tokens", BigInteger, nullable=False),
)

START_COLUMNS = (
    "id",
    "recorder_id",
    "initiator_id",
    "api_key_id",
    "provider",
    "provider_type",
    "route",
    "model",
    "streaming",
    "client",
    "user_agent",
    "session_id",
    "correlating_tool_call_id",
    "credential_kind",
    "credential_hint",
    "metadata",
    "started_at",
    "agent_id",
    "parent_agent_id",
    "truncated",
)
"""What is known at the start, in the order of the rows that the writer makes. New columns come last: the inbox of an
older release has rows without them.
"""

TOKEN_COLUMNS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")

STATE_COLUMNS = ("status", "ended_at", "upstream_status", "error", *TOKEN_COLUMNS)
"""What the end adds."""

END_COLUMNS = ("id", *STATE_COLUMNS, "credential_hint")
"""What the end adds and, where it is not null, changes, after the id it belongs to."""

FILED_COLUMNS = (*START_COLUMNS, *STATE_COLUMNS)
"""All of an interception's row but its key."""


def end_assignments(begun: object) -> str:
    """SET for the row `begun` of an interception that has `ended`."""
    kept = f"credential_hint = coalesce(ended.credential_hint, {begun}.credential_hint)"
    return ", ".join([*(f"{name} = ended.{name}" for name in STATE_COLUMNS), kept])


INBOX_COLUMNS = ("recorder_id", "number", "body")

FACT_COLUMNS = ("interception_id", "part", "body")
