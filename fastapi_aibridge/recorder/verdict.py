"""Classification of database errors: are the values at fault, or can the database accept nothing now?"""

from __future__ import annotations

from enum import Enum, auto


class Verdict(Enum):
    REFUSED = auto()
    """The values are at fault; a retry is useless."""
    SHORT = auto()
    """The database lacks disk space, memory, connections or a lock; the values are not at fault."""
    UNKNOWN = auto()
    """The database is unavailable, or the values are at fault; only another write can tell."""


_REFUSING = ("22", "23", "54")
"""SQLSTATE classes: data exception, integrity constraint violation, program limit exceeded (a too long index row)."""

_SHORT = ("53", "58")
"""SQLSTATE classes: insufficient resources, system error."""

_SQLITE_REFUSING = {"IntegrityError", "DataError"}
_SQLITE_SHORT = ("SQLITE_FULL", "SQLITE_NOMEM", "SQLITE_IOERR", "SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_READONLY")


def judge(error: BaseException) -> Verdict:
    cause: BaseException | None = error
    while cause is not None:
        state = getattr(cause, "sqlstate", None)
        if isinstance(state, str):
            if state.startswith(_REFUSING):
                return Verdict.REFUSED
            return Verdict.SHORT if state.startswith(_SHORT) else Verdict.UNKNOWN
        if type(cause).__module__ == "sqlite3":
            if type(cause).__name__ in _SQLITE_REFUSING:
                return Verdict.REFUSED
            short = str(getattr(cause, "sqlite_errorname", "")).startswith(_SQLITE_SHORT)
            return Verdict.SHORT if short else Verdict.UNKNOWN
        if isinstance(cause, OverflowError):
            return Verdict.REFUSED
        cause = cause.__cause__
    return Verdict.UNKNOWN
