"""Prepares the items of a response for the next round: with the ids under which a provider stores them, or without."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from ..edits import list_member, with_list
from ..large_text import BodyText, Steps
from ..lenient import load, text
from .items import REASONING, arguments_are_object

_KNOWN_BY_REASONING = ("function_call", "message")
"""Types of items that are accepted without an id as well; hosted calls must have one."""


def as_taken(item: dict[str, Any]) -> dict[str, Any]:
    """Return the item with arguments that providers accept.

    They refuse a history with arguments that are not a JSON object; the tool result tells the model what it wrote.
    """
    if item.get("type") != "function_call" or arguments_are_object(item.get("arguments")):
        return item
    return {**item, "arguments": "{}"}


class GoingBack:
    """The items of an interception that go back to the provider. `stored` says whether it stores them."""

    def __init__(self, *, stored: bool) -> None:
        self.stored = stored
        self._ids: set[str] = set()

    def written(self, items: Iterable[dict[str, Any]], *, stored: bool) -> list[bytes]:
        """Return the items of a round as input.

        Reasoning that the provider does not store can go back only with its encrypted content. Without that it is left
        out, and the items after it lose the ids by which the provider would miss it.
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
        """Return the request without ids that only a storing provider knows; None where its refusal names none.

        Organisations without retention, and servers that store nothing, do not always say so in a response.
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
