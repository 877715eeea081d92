"""cachetools' cache of bridges, which hands over what it drops."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import Generic, TypeVar

from cachetools import Cache, TLRUCache

from .metrics import Reason
from .slot import Key, Slot

LeasedT = TypeVar("LeasedT")


class ExpiringCache(TLRUCache[Key, Slot[LeasedT], float], Generic[LeasedT]):
    """Drops what has expired (`Slot.expires_at`), and beyond `maxsize` the least recently used.

    cachetools does that in silence; here `dropped` hears of each slot.
    """

    __len__, __repr__ = Cache.__len__, object.__repr__  # theirs expire, but metrics and debuggers only want to look

    def __init__(
        self, maxsize: int, timer: Callable[[], float], dropped: Callable[[Slot[LeasedT], Reason], None]
    ) -> None:
        super().__init__(maxsize, lambda _key, slot, _now: slot.expires_at, timer)
        self._dropped = dropped
        self._due: list[tuple[float, Key]] = []  # a heap: what expires first; may hold what has left the cache

    def expire(self, time: float | None = None) -> list[tuple[Key, Slot[LeasedT]]]:
        expired = super().expire(time)
        for _, slot in expired:
            self._dropped(slot, "expired")
        return expired

    def popitem(self) -> tuple[Key, Slot[LeasedT]]:
        key, slot = super().popitem()
        self._dropped(slot, "capacity")
        return key, slot

    def take_all(self) -> list[Slot[LeasedT]]:
        """Empty the cache of what has not expired."""
        with self.timer:  # the time stands still, so that nothing expires between two lines
            self.expire()
            slots = list(self.values())
            self.clear()
        return slots

    def peek(self, key: Key) -> Slot[LeasedT] | None:
        """Unlike self[key], this is no use of the key; the slot may have expired."""
        return Cache.__getitem__(self, key) if Cache.__contains__(self, key) else None

    def put(self, slot: Slot[LeasedT]) -> None:
        """Take a slot in, in the place of the one that has been there for its key until now."""
        with self.timer:
            self.expire()
            old = self.peek(slot.key)
            if old is not None:
                del self[slot.key]
                self._dropped(old, "session")
            self[slot.key] = slot
            if self.peek(slot.key) is not slot:  # expired already, so cachetools has not stored it
                self._dropped(slot, "expired")
                return
        heapq.heappush(self._due, (slot.expires_at, slot.key))

    def next_expiry(self) -> float:
        self.expire()
        due = self._due
        if len(due) > 2 * len(self) + 16:
            due[:] = [one for one in due if self._holds(*one)]
            heapq.heapify(due)
        while due and not self._holds(*due[0]):
            heapq.heappop(due)
        return due[0][0] if due else math.inf

    def _holds(self, expires_at: float, key: Key) -> bool:
        slot = self.peek(key)
        return slot is not None and slot.expires_at == expires_at
