"""Estimates of the most that an upstream call can cost, from its request."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ..formats.request import ModelRequest
from .prices import Prices
from .vendor import Vendor


@dataclass(slots=True)
class Estimator:
    """The estimator for the calls of one interception."""

    prices: Prices | None
    vendor: Vendor
    request: ModelRequest
    default_output: int
    """Output tokens of a request that sets no maximum."""
    moment: datetime
    """The start of the interception, which decides the price."""

    history: int = 0
    """Tokens that the provider adds to the request from its own storage, if known."""

    def __call__(self, model: str, given: int) -> int | None:
        """Return the most that the call can cost, in micro-dollars, with `given` tokens of input and any of the models
        that may answer; None if one of them has no price.
        """
        amounts = self._amounts(model, given)
        return None if None in amounts else self._dearest(amounts)

    def of_priced(self, model: str, given: int) -> int:
        """Return the same over only those models that have a price, 0 if none has."""
        return self._dearest(self._amounts(model, given))

    def _amounts(self, model: str, given: int) -> list[int | None]:
        return [self._of(one, given) for one in (model, *self.request.alternatives)]

    @staticmethod
    def _dearest(amounts: list[int | None]) -> int:
        return max((one for one in amounts if one is not None), default=0)

    def _of(self, model: str, given: int) -> int | None:
        price = None if self.prices is None else self.prices.expected(self.vendor, model, self.moment)
        if price is None:
            return None
        request = self.request
        bound = request.max_output
        output = self.default_output if bound is None else bound
        return price.estimate(given + self.history, output * request.choices, request.service_tiers)
