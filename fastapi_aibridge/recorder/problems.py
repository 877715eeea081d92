"""Messages about a database that cannot be used: which one, and why. They hold no password and no value of a record."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError

_SAFE_STATES = ("08", "28", "3D", "42501", "42P01", "53", "57P", "58")
"""SQLSTATE prefixes of errors whose messages name connections, permissions, objects and resources, but no values."""


def database_place(url: URL) -> str:
    """Describe the database: `PostgreSQL at db.example.com:5432, database 'aibridge'`."""
    if url.get_backend_name() != "sqlite":
        where = url.query.get("host") or f"{url.host or 'localhost'}:{url.port or 5432}"
        return f"PostgreSQL at {where}, database {url.database or url.username or ''!r}"
    if not url.database or url.database == ":memory:":
        return "SQLite in memory"
    return f"SQLite in {url.database if url.database.startswith('file:') else str(Path(url.database).absolute())}"


def database_problem(error: BaseException) -> str:
    """Describe the cause of the error in a few words on one line."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    # SQLAlchemy's adapter for asyncpg wraps the driver's error.
    cause = cause.__cause__ or cause
    if isinstance(cause, socket.gaierror):
        return "the host's name cannot be resolved"
    if isinstance(cause, TimeoutError):
        return "it does not answer in time"
    if isinstance(cause, OSError):
        return os.strerror(cause.errno) if cause.errno else type(cause).__name__
    text = str(cause).splitlines()[0] if str(cause) else ""
    state = getattr(cause, "sqlstate", None) or ""
    if state.startswith(_SAFE_STATES) or type(cause).__module__ == "sqlite3":
        return text or type(cause).__name__
    return type(cause).__name__
