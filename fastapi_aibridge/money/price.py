"""The price of one model at one provider, with all that it depends on."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ..recorder.records import TokenUsage
from .rates import Rates, micro_dollars

EVER = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
STANDARD = ""
"""The service tier of a request that names none."""


class Tier:
    """The rates of a service tier by the size of the prompt: from one token above each of `starts` on, the rates at
    its place count for all of the message.
    """

    __slots__ = ("rates", "starts")

    def __init__(self, rates: Sequence[Rates], starts: Sequence[int] = ()) -> None:
        """One more of the rates than of the starts, which ascend."""
        self.rates = rates
        self.starts = starts

    def of(self, input_tokens: int) -> Rates:
        return self.rates[bisect_left(self.starts, input_tokens)]


class Price:
    """What the messages of one model cost.

    `source` says whose prices these are, `date` is the day in UTC on which they were in force; both go into the record.
    """

    __slots__ = ("_told", "date", "source", "tiers")

    def __init__(self, source: str, date: str, tiers: Mapping[str, Tier]) -> None:
        """`tiers` has at least the `STANDARD` one."""
        self.source = source
        self.date = date
        self.tiers = tiers
        self._told: dict[int, dict[str, Any]] = {}

    def rates(self, usage: TokenUsage) -> Rates:
        """The rates for this usage's service tier, where it has its own, and for its prompt's size."""
        tier = self.tiers.get(usage.service_tier or STANDARD) or self.tiers[STANDARD]
        if not tier.starts:
            return tier.rates[0]
        return tier.of(usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens)

    def cost(self, usage: TokenUsage) -> int:
        """In micro-dollars, rounded."""
        return micro_dollars(self.rates(usage).cost(usage))

    def estimate(self, input_tokens: int, output_tokens: int, tiers: Sequence[str] = ()) -> int:
        """The most that so many tokens cost, in micro-dollars, in one of these service tiers or in the standard one:
        nothing of the input comes from a cache or goes into one.
        """
        standard = self.tiers[STANDARD]
        rates = standard.of(input_tokens) if standard.starts else standard.rates[0]
        scaled = rates.estimate(input_tokens, output_tokens)
        for name in tiers:
            if (tier := self.tiers.get(name)) is not None:
                scaled = max(scaled, tier.of(input_tokens).estimate(input_tokens, output_tokens))
        return micro_dollars(scaled)

    def told(self, rates: Rates) -> dict[str, Any]:
        """The rates as the record has them, in US dollars for a million tokens, with their source and date."""
        told = self._told.get(id(rates))
        if told is None:
            told = self._told[id(rates)] = {"source": self.source, "date": self.date, **rates.told}
        return told
