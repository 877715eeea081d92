"""The tables of the SQL recorder. Timestamps are microseconds since 1970 in UTC, days are counted from the same origin.

A start is written to the inbox and moves to the interceptions' table a moment later. An interception is one narrow row
there; its facts, and so all content, are JSON in another table, with one row for each time that facts were recorded.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, MetaData, Table, Text, false, text

from .columns import (
    BEGUN,
    BEGUN_TYPES,
    END_COLUMNS,
    FACT_COLUMNS,
    FILED_COLUMNS,
    INBOX_COLUMNS,
    OBJECT_COLUMNS,
    SET_ASIDE_COLUMNS,
    STATE_COLUMNS,
    TOKEN_COLUMNS,
)

metadata = MetaData()

_Key = BigInteger().with_variant(Integer, "sqlite")
_RUNNING = text("status = 'running'")
_IN_SESSION = text("session_id IS NOT NULL")


def _begun(name: str) -> Column[Any]:
    """Return the column of a member of `Interception`."""
    kind = BEGUN_TYPES[name]
    if kind == "bool":
        # Workers of an older release do not write columns that were added later.
        return Column(name, Boolean, nullable=False, server_default=false() if name == "truncated" else None)
    nullable = kind.endswith("None") or name == "groups"
    return Column(name, BigInteger if kind == "datetime" else Text, nullable=nullable)


interceptions = Table(
    "aibridge_interceptions",
    metadata,
    # A narrow key makes every index half as wide as the id would.
    Column("seq", _Key, primary_key=True, autoincrement=True),
    Column("recorder_id", Text, nullable=False),
    *map(_begun, BEGUN),
    Column("status", Text, nullable=False),
    Column("ended_at", BigInteger),
    Column("upstream_status", Integer),
    Column("error", Text),
    *(Column(name, BigInteger, nullable=False, server_default="0") for name in TOKEN_COLUMNS),
    # Micro-dollars; null without a price, and in rows of older releases.
    Column("cost", BigInteger),
    Column("cost_estimated", Boolean),
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
    # Rows are keyed by recorder, so that filed ones are deleted as one range.
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
    # Identifies and orders the rows of one interception; writing a batch twice changes nothing.
    Column("part", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
    Index("aibridge_facts_interception", "interception_id", "part", unique=True),
)

objects = Table(
    "aibridge_objects",
    metadata,
    # Objects that a provider made and keeps, with their owners.
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
    # Rows that their own table refused, as JSON, for inspection by a person.
    Column("seq", _Key, primary_key=True, autoincrement=True),
    Column("recorder_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("set_aside_at", BigInteger, nullable=False),
    Index("aibridge_set_aside_at", "set_aside_at"),
)

erasures = Table(
    "aibridge_erasures",
    metadata,
    # Requested erasures: of the records (`everything`) or only the content of what started until `asked_at`.
    Column("initiator_id", Text, primary_key=True),
    Column("everything", Boolean, primary_key=True),
    Column("asked_at", BigInteger, nullable=False),
    # Interceptions up to this `seq` are erased.
    Column("done_up_to", BigInteger, nullable=False, server_default="0"),
)

recorders = Table(
    "aibridge_recorders",
    metadata,
    Column("id", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("process_started", Text, nullable=False),
    # Time of the database, so that the machines' clocks need not agree.
    Column("heartbeat_at", BigInteger, nullable=False),
    # Columns of an app's worker; null for the recorder of a script.
    Column("started_at", BigInteger),
    Column("provider_version", BigInteger),
    Column("config_version", BigInteger),  # in force
    Column("config_seen", BigInteger),  # last tried
    Column("error", Text),
)

budgets = Table(
    "aibridge_budgets",
    metadata,
    # Budgets of the admin API; others come from settings and principals.
    Column("scope", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("period", Text, primary_key=True),
    # Micro-dollars.
    Column("amount", BigInteger, nullable=False),
    Column("fallback_model", Text),
)

budget_counters = Table(
    "aibridge_budget_counters",
    metadata,
    Column("id", _Key, primary_key=True, autoincrement=True),
    Column("scope", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("period", Text, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    # Micro-dollars.
    Column("spent", BigInteger, nullable=False),
    Column("reserved", BigInteger, nullable=False),
    # The highest spending about which a warning was given, in micro-dollars.
    Column("told", BigInteger().with_variant(Integer, "sqlite"), nullable=False, server_default="0"),
    Index("aibridge_budget_counters_key", "scope", "subject", "period", "started_at", unique=True),
    Index("aibridge_budget_counters_started", "started_at"),
)

reservations = Table(
    "aibridge_reservations",
    metadata,
    # The amounts that running interceptions have reserved and already spent, by counter.
    Column("interception_id", Text, primary_key=True),
    Column("counter_id", BigInteger, primary_key=True, autoincrement=False),
    # Empty after the recorder was found dead and the row was settled; a late end corrects the amount.
    Column("recorder_id", Text, nullable=False),
    Column("spent", BigInteger, nullable=False),
    Column("reserved", BigInteger, nullable=False),
    sqlite_with_rowid=False,
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
    *(Column(name, BigInteger, nullable=False) for name in TOKEN_COLUMNS),
    Column("cost", BigInteger),
)


def end_assignments(begun: object) -> str:
    """Return the assignments that write an end, the row `ended`, to the interception's row `begun`."""
    changed = [
        f"credential_hint = coalesce(ended.credential_hint, {begun}.credential_hint)",
        f"truncated = ({begun}.truncated OR ended.truncated)",
    ]
    return ", ".join([*(f"{name} = ended.{name}" for name in STATE_COLUMNS), *changed])


_ON_FILED_BEFORE = f"(id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in END_COLUMNS[1:])}"
# The row exists if a batch is written again, or if the recorder was taken for dead and its inbox was filed.

TARGETS: dict[str, tuple[Table, tuple[str, ...], str]] = {
    "inbox": (inbox, INBOX_COLUMNS, "DO NOTHING"),
    "filed": (interceptions, FILED_COLUMNS, _ON_FILED_BEFORE),
    "facts": (facts, FACT_COLUMNS, "DO NOTHING"),
    "objects": (objects, OBJECT_COLUMNS, "DO NOTHING"),
    "set_aside": (set_aside, SET_ASIDE_COLUMNS, "DO NOTHING"),
}
"""The target of each kind of rows: the table, its columns, and the action of ON CONFLICT."""
