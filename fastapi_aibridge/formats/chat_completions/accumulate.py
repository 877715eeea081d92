"""Accumulates the members of a message from the deltas of a stream, unknown members included.

Strings are joined, objects merged, lists concatenated; members that name something are replaced.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from ..text import Budget, TextBuffer

Members: TypeAlias = dict[str, Any]

_NAMES = frozenset({"id", "type", "role", "index", "format", "name", "object", "model", "mime_type"})
_ENDS_OF_NAMES = ("_id", "_type", "signature")
"""Endings of members that some providers repeat in each delta, and none sends in pieces."""
_SAID = frozenset({"text", "thinking", "summary", "content", "data"})
_OF_TEXT = _SAID | {"type", "format", "signature"}
_DEPTH = 8
_OPEN = 8
"""Items at the end of a list that may still be continued."""


def add(members: Members, delta: Mapping[str, Any], budget: Budget, depth: int = _DEPTH) -> None:
    """Add a delta's members to those of the message. `built` converts these to plain JSON."""
    for key, value in delta.items():
        if value is None or (key not in members and not budget.take(len(key), 1)):
            continue
        members[key] = _joined(key, members.get(key), value, budget, depth)


def _joined(key: str, known: Any, value: Any, budget: Budget, depth: int) -> Any:
    if isinstance(value, str) and not (key in _NAMES or key.endswith(_ENDS_OF_NAMES)):
        if isinstance(known, list):
            # Mistral: thinking comes as parts, and the text after it as a string.
            _append(known, {"type": "text", "text": value}, budget, depth)
            return known
        text = known if isinstance(known, TextBuffer) else TextBuffer(budget)
        text.add(value)
        return text
    if isinstance(value, dict) and depth:
        members = known if isinstance(known, dict) else {}
        add(members, value, budget, depth - 1)
        return members
    if isinstance(value, list) and depth:
        items = known if isinstance(known, list) else []
        if isinstance(known, TextBuffer) and str(known):
            items.append({"type": "text", "text": known})
        for item in value:
            _append(items, item, budget, depth - 1)
        return items
    return value if budget.take(len(value) if isinstance(value, str) else 8) else known


def _append(items: list[Any], item: object, budget: Budget, depth: int) -> None:
    if isinstance(item, dict):
        for last in reversed(items[-_OPEN:]):
            if isinstance(last, dict) and _goes_on(last, item):
                add(last, item, budget, depth)
                return
            if "index" not in item:
                break
    if not budget.take(16, 1):
        return
    if isinstance(item, dict):
        new: Members = {}
        add(new, item, budget, depth)
        items.append(new)
    else:
        items.append(item)


def _goes_on(last: Mapping[str, Any], item: Mapping[str, Any]) -> bool:
    """Whether an item continues the last one: it has the same index, or is more of the same kind of text."""
    if any(name in item and item[name] != last.get(name, item[name]) for name in ("type", "id", "index")):
        return False
    if isinstance(item.get("index"), int):
        return bool(item["index"] == last.get("index"))
    return (
        "index" not in last
        and item.keys() <= _OF_TEXT
        and not ("signature" in item and "signature" in last)
        and last.keys() <= _OF_TEXT
    )


def built(value: Any) -> Any:
    """Convert accumulated members to plain JSON values."""
    if isinstance(value, TextBuffer):
        return str(value)
    if isinstance(value, dict):
        return {key: built(one) for key, one in value.items()}
    return [built(one) for one in value] if isinstance(value, list) else value
