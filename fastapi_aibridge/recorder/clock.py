"""The database's clock, used so that the machines' clocks need not agree."""

from __future__ import annotations

from sqlalchemy import ColumnElement, literal_column


def now_of(*, is_sqlite: bool) -> ColumnElement[int]:
    """Return an SQL expression for the current time, in microseconds since 1970."""
    if is_sqlite:
        return literal_column("CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)")
    return literal_column("CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)")
