"""The database's clock, used so that the machines' clocks need not agree."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, ColumnElement
from sqlalchemy.ext.compiler import compiles


class _Now(ColumnElement[int]):
    inherit_cache = True
    type = BigInteger()


@compiles(_Now, "sqlite")
def _in_sqlite(*_: object, **__: Any) -> str:
    return "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)"


@compiles(_Now, "postgresql")
def _in_postgresql(*_: object, **__: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)"


NOW = _Now()
"""The current time in SQL, in microseconds since 1970."""
