"""The cache of bridges: one of cachetools' that reports what it drops."""

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
    """A cache that drops expired slots (`Slot.expires_at`) and, beyond `maxsize`, the least recently used ones.

    `dropped` is called with each slot that is dropped, and the reason.
    """

    __len__, __repr__ = Cache.__len__, object.__repr__  # cachetools' own would expire slots, as a side effect

    def __init__(
        self, maxsize: int, timer: Callable[[], float], dropped: Callable[[Slot[LeasedT], Reason], None]
    ) -> None:
        super().__init__(maxsize, lambda _key, slot, _now: slot.expires_at, timer)
        self._dropped = dropped
        self._due: list[tuple[float, Key]] = []  # a heap by expiry; may hold keys that have left the cache

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
        """Empty the cache and return the slots that have not expired."""
        with self.timer:  # freezes the time, so that nothing expires between two lines
            self.expire()
            slots = list(self.values())
            self.clear()
        return slots

    def peek(self, key: Key) -> Slot[LeasedT] | None:
        """Return the key's slot without counting as a use of it, None if there is none. It may have expired."""
        return Cache.__getitem__(self, key) if Cache.__contains__(self, key) else None

    def put(self, slot: Slot[LeasedT]) -> None:
        """Store a slot, and drop the previous one of its key."""
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
