"""The database's own clock, so that machines need not agree on the time."""

from __future__ import annotations

from sqlalchemy import ColumnElement, literal_column


def now_of(*, is_sqlite: bool) -> ColumnElement[int]:
    """Microseconds since 1970."""
    if is_sqlite:
        return literal_column("CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)")
    return literal_column("CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)")
