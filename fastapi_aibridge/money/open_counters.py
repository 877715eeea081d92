"""The counters that this process has opened, with their ids and last known amounts."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..recorder.reservations import Counted, CounterKey, Counters
from .budget_book import Limit

_MOST = 20_000
_NOTHING = Counted()


@dataclass(slots=True, eq=False)
class OpenCounter:
    id: int
    key: CounterKey
    limit: Limit
    """The limit of the request that used the counter last."""
    counted: Counted = _NOTHING
    warned: int = 0
    """The highest spending, in micro-dollars, about which this process has tried to warn."""


class OpenCounters:
    """An LRU cache of open counters; a dropped counter is opened again when it is needed."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._by_key: OrderedDict[CounterKey, OpenCounter] = OrderedDict()
        self._by_id: dict[int, OpenCounter] = {}
        self._opening = asyncio.Lock()

    async def open(self, limits: Sequence[Limit]) -> list[OpenCounter]:
        """Return the counters of these limits; only new ones need the database. Raises `RecorderUnavailable`."""
        while (known := self.known(limits)) is None:
            async with self._opening:  # concurrent requests often need the same counters
                await self._open_missing(limits)
        while len(self._by_key) > _MOST:
            _, gone = self._by_key.popitem(last=False)
            del self._by_id[gone.id]
        return known

    def known(self, limits: Sequence[Limit]) -> list[OpenCounter] | None:
        """Return the counters of these limits from the cache; None if any of them is missing."""
        found = []
        by_key = self._by_key
        for limit in limits:
            counter = by_key.get(limit.counter)
            if counter is None:
                return None
            counter.limit = limit
            by_key.move_to_end(limit.counter)
            found.append(counter)
        return found

    async def _open_missing(self, limits: Sequence[Limit]) -> None:
        missing = [limit for limit in limits if limit.counter not in self._by_key]
        if missing:
            ids = await self._counters.open([limit.counter for limit in missing])
            for id_, limit in zip(ids, missing, strict=True):
                self._by_key[limit.counter] = self._by_id[id_] = OpenCounter(id_, limit.counter, limit)

    def warn_again(self) -> None:
        """Forget which warnings were tried, because limits have changed."""
        for counter in self._by_id.values():
            counter.warned = 0

    def saw(self, counters: Mapping[int, Counted]) -> list[OpenCounter]:
        """Store new amounts of counters. Returns the ones that are in the cache."""
        seen = []
        for id_, counted in counters.items():
            counter = self._by_id.get(id_)
            if counter is not None:
                counter.counted = counted
                seen.append(counter)
        return seen
