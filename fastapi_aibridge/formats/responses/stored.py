"""Stored responses and pages of items, with which the provider also returns the injected tools."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ..edits import AT_ONCE, list_member, with_list
from ..large_text import BodyText, Steps, contains
from ..lenient import load, text
from ..rounds import MARK, PREFIX

_LISTS = ("tools", "output", "data")


def without_injected(answer: BodyText) -> Steps[BodyText]:
    """Return the answer without injected tools, their calls, and the results of those calls in the same list; the
    answer itself if it has none. Raises `ValueError` if it is no JSON.
    """
    if not (yield from contains(answer, (MARK,), 0, len(answer))):
        return answer
    for name in _LISTS:
        written = yield from list_member(answer, name)
        kept = yield from _kept(written)
        if len(kept) < len(written):
            answer = yield from with_list(answer, name, kept)
    return answer


def _kept(written: Collection[bytes]) -> Steps[list[bytes]]:
    others: list[bytes] = []
    calls: set[str] = set()
    for index, one in enumerate(written):
        if index % AT_ONCE == AT_ONCE - 1:
            yield
        if MARK in one and text((injected := _object(one)).get("name")).startswith(PREFIX):
            calls.add(text(injected.get("call_id")))
        else:
            others.append(one)
    kept: list[bytes] = []
    for index, one in enumerate(others):  # pages list the newest first, so results may come before their calls
        if index % AT_ONCE == AT_ONCE - 1:
            yield
        if b"_output" not in one or not (id_ := text(_object(one).get("call_id"))) or id_ not in calls:
            kept.append(one)
    return kept


def _object(written: bytes) -> dict[str, Any]:
    value = load(written)
    return value if isinstance(value, dict) else {}
