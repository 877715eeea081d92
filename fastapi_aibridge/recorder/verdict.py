"""What an error of the database says: that it will never take these values, or that it takes nothing now."""

from __future__ import annotations

from enum import Enum, auto


class Verdict(Enum):
    REFUSED = auto()
    """These very values; trying again is in vain."""
    SHORT = auto()
    """The database lacks disk, memory or connections: whatever it was given, the values are not to blame."""
    UNKNOWN = auto()
    """The database is away, or it is the values: only another write tells."""


_REFUSING = ("22", "23", "54")
"""Classes of SQLSTATE: data exceptions, broken constraints, limits of the program (an index row that is too long)."""

_SHORT = ("53", "58")
"""Insufficient resources, errors of the system."""

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
