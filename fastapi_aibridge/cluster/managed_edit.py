"""What a body of the admin API makes of an entry that is there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .managed_form import SECRETS, Body, Kind, shown


def merged(body: Body, changes: Body) -> dict[str, Any]:
    """The body with the changes, as RFC 7396 has it: objects are merged at all depths, and null takes away."""
    members = dict(body)
    for name, value in changes.items():
        if value is None:
            members.pop(name, None)
        elif isinstance(value, Mapping):
            before = members.get(name)
            members[name] = merged(before if isinstance(before, Mapping) else {}, value)
        else:
            members[name] = value
    return members


def with_secrets(kind: Kind, given: Body, before: Body) -> dict[str, Any]:
    """What was given, with the secrets of before where it has their hints: a client that writes back what it has read
    means no change.
    """
    told = shown(kind, before)
    return {
        name: _secret(value, told[name], before[name]) if name in SECRETS[kind] and name in told else value
        for name, value in given.items()
    }


def _secret(given: Any, told: Any, before: Any) -> Any:
    if isinstance(given, str):
        return before if given == told else given
    if isinstance(given, Mapping) and isinstance(told, Mapping):
        return {name: before[name] if name in told and one == told[name] else one for name, one in given.items()}
    if isinstance(given, list) and isinstance(told, list):
        left = list(zip(told, before, strict=True))
        return [_first(one, left) for one in given]
    return given


def _first(given: Any, left: list[tuple[Any, Any]]) -> Any:
    """The first secret of this hint that has not been taken yet: short ones have all the same hint."""
    for number, (told, secret) in enumerate(left):
        if given == told:
            del left[number]
            return secret
    return given
