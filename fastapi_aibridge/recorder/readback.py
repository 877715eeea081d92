"""Conversion of rows back to records. Another release or program may have written a row, so nothing in it is trusted:
unreadable values are left out, the rest is returned.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields
from datetime import datetime
from typing import Any, TypeVar

from .columns import BEGUN, BEGUN_TYPES, FACT_TYPES
from .cursor import from_microseconds
from .records import Ending, Facts, Interception, InterceptionRecord, Status
from .text import load

_T = TypeVar("_T")

_EMPTY: dict[str, Any] = {"str": "", "int": 0, "bool": False, "float | None": None, "str | None": None}
"""The substitute for an unreadable value, by its member's annotation."""
_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "int | None": (int,),
    "float | None": (int, float),
    "str | None": (str,),
    "Mapping[str, int]": (dict,),
    "Mapping[str, Any] | None": (dict,),
    "Any": (object,),
}


def record(row: Mapping[str, Any], bodies: Iterable[object]) -> InterceptionRecord:
    """Return the record of an interception's row and the bodies of its facts, oldest first."""
    ending = None
    status = _status(row["status"])
    started_at = _moment(row["started_at"])
    if status is not Status.RUNNING:
        upstream_status = row["upstream_status"]
        ending = Ending(
            status=status,
            ended_at=started_at if row["ended_at"] is None else _moment(row["ended_at"]),
            upstream_status=upstream_status if isinstance(upstream_status, int) else None,
            error=_text(row["error"]),
            cost=row["cost"] if isinstance(row["cost"], int) else None,
            cost_estimated=bool(row["cost_estimated"]) and row["cost"] is not None,
        )
    members: dict[str, Any] = {}
    for name in BEGUN:
        kind = BEGUN_TYPES[name]
        if kind == "bool":
            members[name] = bool(row[name])
        elif kind.startswith("str"):
            members[name] = _text(row[name])
    begun = Interception(
        **members, metadata=_mapping(row["metadata"]), started_at=started_at, groups=_groups(row["groups"])
    )
    return InterceptionRecord(begun, load_facts(bodies), ending)


def load_facts(bodies: Iterable[object]) -> Facts:
    facts = Facts()
    for body in bodies:
        value = _mapping(body)
        for name, kind in FACT_TYPES.items():
            items = value.get(name)
            if isinstance(items, list):
                getattr(facts, name).extend([_made(kind, item) for item in items if isinstance(item, dict)])
    return facts


def _made(kind: type[_T], value: dict[str, Any]) -> _T:
    """Return the entry with its readable members; members that only a newer release knows are ignored."""
    members: dict[str, Any] = {}
    for name, annotation, default in _members(kind):
        given = value.get(name, MISSING)
        if given is not MISSING and (
            isinstance(given, _TYPES[annotation]) or (given is None and annotation[-4:] == "None")
        ):
            members[name] = given
        elif default is MISSING:
            members[name] = _EMPTY.get(annotation)
    return kind(**members)


_MEMBERS: dict[type, Sequence[tuple[str, str, object]]] = {
    kind: [
        (
            each.name,
            str(each.type),
            MISSING if each.default is MISSING and each.default_factory is MISSING else None,
        )
        for each in fields(kind)
    ]
    for kind in FACT_TYPES.values()
}


def _members(kind: type) -> Sequence[tuple[str, str, object]]:
    return _MEMBERS[kind]


def _mapping(text: object) -> dict[str, Any]:
    if not isinstance(text, str):
        return {}
    try:
        value = load(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _groups(text: object) -> tuple[str, ...]:
    if not isinstance(text, str):
        return ()
    try:
        value = load(text)
    except (ValueError, RecursionError):
        return ()
    return tuple(map(str, value)) if isinstance(value, list) else ()


def _text(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else str(value)


def _status(value: object) -> Status:
    try:
        return Status(str(value))
    except ValueError:
        return Status.INTERRUPTED


def _moment(value: object) -> datetime:
    try:
        return from_microseconds(int(value))  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        return from_microseconds(0)
