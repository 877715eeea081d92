"""The price of one model at one provider, by service tier and size of the prompt."""

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
    """The rates of a service tier, by the size of the prompt. `rates[0]` apply up to `starts[0]` tokens, `rates[1]`
    above that up to `starts[1]`, and so on; one set of rates applies to the whole message.
    """

    __slots__ = ("rates", "starts")

    def __init__(self, rates: Sequence[Rates], starts: Sequence[int] = ()) -> None:
        """`starts` must ascend, and `rates` must have one item more."""
        self.rates = rates
        self.starts = starts

    def of(self, input_tokens: int) -> Rates:
        return self.rates[bisect_left(self.starts, input_tokens)]


class Price:
    """The price of a model's messages.

    `source` names the origin of the price, `date` is the day in UTC on which it was in force; both go into the record.
    """

    __slots__ = ("_recorded", "date", "source", "tiers")

    def __init__(self, source: str, date: str, tiers: Mapping[str, Tier]) -> None:
        """`tiers` must contain `STANDARD`."""
        self.source = source
        self.date = date
        self.tiers = tiers
        self._recorded: dict[int, dict[str, Any]] = {}

    def rates(self, usage: TokenUsage) -> Rates:
        """Return the rates for the usage's service tier (the standard one if it has none) and its prompt's size."""
        tier = self.tiers.get(usage.service_tier or STANDARD) or self.tiers[STANDARD]
        if not tier.starts:
            return tier.rates[0]
        return tier.of(usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens)

    def cost(self, usage: TokenUsage) -> int:
        """Return the cost in micro-dollars, rounded."""
        return micro_dollars(self.rates(usage).cost(usage))

    def estimate(self, input_tokens: int, output_tokens: int, tiers: Sequence[str] = ()) -> int:
        """Return the most that so many tokens cost, in micro-dollars, in the standard tier or any of `tiers`, assuming
        that the input is neither read from a cache nor written to one.
        """
        standard = self.tiers[STANDARD]
        rates = standard.of(input_tokens) if standard.starts else standard.rates[0]
        scaled = rates.estimate(input_tokens, output_tokens)
        for name in tiers:
            if (tier := self.tiers.get(name)) is not None:
                scaled = max(scaled, tier.of(input_tokens).estimate(input_tokens, output_tokens))
        return micro_dollars(scaled)

    def as_recorded(self, rates: Rates) -> dict[str, Any]:
        """Return the rates in the form of the record: US dollars per million tokens, with source and date."""
        recorded = self._recorded.get(id(rates))
        if recorded is None:
            recorded = self._recorded[id(rates)] = {"source": self.source, "date": self.date, **rates.as_recorded}
        return recorded
