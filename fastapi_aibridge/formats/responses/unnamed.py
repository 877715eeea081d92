"""Calls that begin without a name: some servers send it only at the item's end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..lenient import member, objects, text
from ..rounds import TAIL
from .message import ENDS

Event = tuple[bytes, Mapping[str, Any]]


class UnnamedCalls:
    """Holds back events from an unnamed call on, until it is known whether the client sees the call."""

    __slots__ = ("_events", "_names", "_open", "_room")

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._names: dict[int, str] = {}
        self._open: set[int] = set()
        self._room = TAIL

    @property
    def waits(self) -> bool:
        return bool(self._events)

    def begins(self, event: Mapping[str, Any]) -> bool:
        """Whether an unnamed call begins with this event."""
        item = member(event, "item")
        return (
            event.get("type") == "response.output_item.added"
            and item.get("type") == "function_call"
            and not item.get("name")
            and isinstance(event.get("output_index"), int)
        )

    def take(self, raw: bytes, event: Mapping[str, Any]) -> list[Event]:
        """Hold back an event; return all held-back events once they can be passed on."""
        self._events.append((raw, event))
        self._room -= len(raw)
        index = event.get("output_index")
        if self.begins(event):
            self._open.add(event["output_index"])
        elif isinstance(index, int) and index in self._open and (name := _name_in(event)):
            self._names[index] = name
            self._open.discard(index)
        kind = event.get("type")
        if kind in ENDS:
            for place, item in enumerate(objects(member(event, "response").get("output"))):
                self._names.setdefault(place, text(item.get("name")))
        is_over = kind in ENDS or kind == "error" or event.get("error") or self._room < 0
        return self.settled() if is_over or not self._open else []

    def settled(self) -> list[Event]:
        """Return all held-back events, whether or not the names are known."""
        events, self._events = self._events, []
        self._open.clear()
        return events

    def named(self, item: Mapping[str, Any], index: int) -> Mapping[str, Any]:
        """Return the item with its name, where that is known."""
        return item if item.get("name") or index not in self._names else {**item, "name": self._names[index]}


def _name_in(event: Mapping[str, Any]) -> str:
    return text(member(event, "item").get("name")) or text(event.get("name"))
