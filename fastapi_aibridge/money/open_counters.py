"""The counters that this process has opened: their ids, and what they held when they were last seen."""

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
    """The one that was asked for last."""
    counted: Counted = _NOTHING
    told: tuple[int, int] = (0, 0)
    """The amount of the limit, and the highest percentage of it that this process has seen reached."""


class OpenCounters:
    """Bounded: the counter that was not used for the longest time is forgotten, and opened again when it is needed."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._by_key: OrderedDict[CounterKey, OpenCounter] = OrderedDict()
        self._by_id: dict[int, OpenCounter] = {}
        self._opening = asyncio.Lock()

    async def open(self, limits: Sequence[Limit]) -> list[OpenCounter]:
        """The counters of these limits. Raises `RecorderUnavailable`; asks the database only for those that are new."""
        while (known := self.known(limits)) is None:
            async with self._opening:  # those who come at one moment want the same ones
                await self._open_missing(limits)
        while len(self._by_key) > _MOST:
            _, gone = self._by_key.popitem(last=False)
            del self._by_id[gone.id]
        return known

    def known(self, limits: Sequence[Limit]) -> list[OpenCounter] | None:
        """The same without asking anybody; None where one of them is new."""
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

    def saw(self, counters: Mapping[int, Counted]) -> list[OpenCounter]:
        """Remember what they hold now; returns those that are known here."""
        seen = []
        for id_, counted in counters.items():
            counter = self._by_id.get(id_)
            if counter is not None:
                counter.counted = counted
                seen.append(counter)
        return seen
