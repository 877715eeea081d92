"""Items of a response as they go back in a later round: with the ids by which a provider knows them, or without."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from ..edits import list_member, with_list
from ..large_text import BodyText, Steps
from ..lenient import load, text
from .items import REASONING, arguments_are_object

_KNOWN_BY_REASONING = ("function_call", "message")
"""Items that go without an id as well; hosted calls must have one."""


def as_taken(item: dict[str, Any]) -> dict[str, Any]:
    """Providers refuse a history whose arguments are not JSON; the result tells the model what it wrote."""
    if item.get("type") != "function_call" or arguments_are_object(item.get("arguments")):
        return item
    return {**item, "arguments": "{}"}


class GoingBack:
    """The items of all rounds of an interception. `stored` says whether the provider keeps them."""

    def __init__(self, *, stored: bool) -> None:
        self.stored = stored
        self._ids: set[str] = set()

    def written(self, items: Iterable[dict[str, Any]], *, stored: bool) -> list[bytes]:
        """The items of a round as input. What is not stored upstream can be named only by its encrypted content; what
        it led to goes back without the id by which the provider would miss it.
        """
        written: list[bytes] = []
        alone = False
        for item in items:
            if item.get("type") == REASONING:
                alone = not (self.stored and stored) and not item.get("encrypted_content")
                if alone:
                    continue
            sent = as_taken(item)
            if alone:
                sent = _without_id(sent)
            if id_ := text(sent.get("id")):
                self._ids.add(id_)
            written.append(orjson.dumps(sent))
        return written

    def forget(self, body: BodyText, refusal: bytes) -> Steps[BodyText | None]:
        """The request without what only a provider that keeps it can know; None where its refusal names no such thing.
        Organisations without retention, and servers that keep nothing, do not always say so in a response.
        """
        ids = self._ids
        if not any(id_.encode() in refusal for id_ in ids):
            return None
        self.stored, self._ids = False, set()
        kept: list[bytes] = []
        for written in (yield from list_member(body, "input")):
            yield
            item = load(written) if b'"id"' in written else {}
            if text(item.get("id")) not in ids:
                kept.append(written)
            elif item.get("type") != REASONING:
                kept.append(orjson.dumps(_without_id(item)))
            elif item.get("encrypted_content"):
                kept.append(written)
        return (yield from with_list(body, "input", kept))


def _without_id(item: dict[str, Any]) -> dict[str, Any]:
    if item.get("type") not in _KNOWN_BY_REASONING:
        return item
    return {key: value for key, value in item.items() if key != "id"}
