"""Merging of a body sent to the admin API into an existing entry."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from .managed_form import SECRETS, Body, InvalidMember, InvalidSettings, Kind, shown

_HINT = re.compile(r"(.{3})?\.\.\.(.{4})?|\w+://[^/]*/\.\.\.")


def merged(body: Body, changes: Body) -> dict[str, Any]:
    """Apply changes to a body by RFC 7396: objects are merged at all depths, and null removes a member."""
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
    """Return the given body, with the secrets of `before` in place of their hints: a client that writes back what it
    has read changes nothing. Raises `InvalidSettings` for any other hint.
    """
    told = shown(kind, before)
    found = dict(given)
    for name in SECRETS[kind]:
        if name in told and name in given:
            found[name] = _secret(given[name], told[name], before[name])
        if any(map(_HINT.fullmatch, _texts(found.get(name)))):
            words = "this is the hint of a secret that is not this member's; write the secret itself"
            raise InvalidSettings([InvalidMember((name,), "value_error", words)])
    return found


def _texts(value: Any) -> Iterator[str]:
    values = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else (value,)
    return (one for one in values if isinstance(one, str))


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
    """Return the first unused secret with this hint, else the text itself: all short secrets have the same hint."""
    for number, (told, secret) in enumerate(left):
        if given == told:
            del left[number]
            return secret
    return given
