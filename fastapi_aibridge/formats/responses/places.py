"""Tells which item of a response an event is about, for servers that give no `output_index`, or always the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..lenient import member, text
from ..text import ITEMS

ADDED, DONE = "response.output_item.added", "response.output_item.done"
_MAX_ID = 512
"""Characters of an id that is remembered."""


class Places:
    """The places of one response's items: mostly the `output_index` of their events.

    llama.cpp gives none (ggml-org/llama.cpp#20607); then an event belongs to the item whose id it names, or else to the
    last item that has begun. Beyond `ITEMS` items, of which no more are kept, only the index counts.
    """

    __slots__ = ("_by_id", "_by_index", "_last", "_next", "_shared")

    def __init__(self) -> None:
        self._by_index: dict[int, int] = {}
        self._by_id: dict[str, int] = {}
        self._shared: set[int] = set()  # indexes of several items
        self._last: int | None = None  # the item that has begun last, until it is done
        self._next = 0

    def of(self, event: Mapping[str, Any]) -> int | None:
        """Return the place of the event's item; None where it is about no item. Call it once for each event."""
        index = event.get("output_index")
        index = index if isinstance(index, int) else None
        id_ = text(member(event, "item").get("id")) or text(event.get("item_id"))
        if index is None and not id_ and "item" not in event:
            return None
        kind = event.get("type")
        if kind == ADDED:
            return self._begin(index, id_)
        place = self._known(index, id_)
        if place is None:
            place = self._begin(index, id_)
        if kind == DONE and place == self._last:
            self._last = None
        return place

    def _known(self, index: int | None, id_: str) -> int | None:
        if index is not None and index not in self._shared:
            return self._by_index.get(index)  # first of all: some servers change the ids on the way
        if id_ in self._by_id:
            return self._by_id[id_]
        return self._last if index is None else self._by_index[index]

    def _begin(self, index: int | None, id_: str) -> int:
        is_known = index is not None and index in self._by_index
        place = self._next if index is None or is_known else index
        if index is not None and is_known:
            self._shared.add(index)
        if index is not None and (is_known or len(self._by_index) < ITEMS):
            self._by_index[index] = place
        if id_ and len(id_) <= _MAX_ID and len(self._by_id) < ITEMS:
            self._by_id[id_] = place
        self._last, self._next = place, max(self._next, place + 1)
        return place
