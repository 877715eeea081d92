"""The most that an upstream call can cost, as far as its request tells."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ..formats.request import ModelRequest
from .prices import Prices
from .vendor import Vendor


@dataclass(slots=True)
class Estimator:
    """For the calls of one interception."""

    prices: Prices | None
    vendor: Vendor
    request: ModelRequest
    default_output: int
    """Tokens of an answer whose request sets no bound."""
    moment: datetime
    """When the interception started: its price is that of this moment."""

    history: int = 0
    """Tokens that the provider keeps and adds to what the request says, as far as they are known."""

    def __call__(self, model: str, given: int) -> int | None:
        """Micro-dollars for so many tokens of input, of whichever model may answer; None where one has no price."""
        amounts = self._amounts(model, given)
        return None if None in amounts else self._dearest(amounts)

    def of_priced(self, model: str, given: int) -> int:
        """The same of those models that have a price: a name that nobody knows takes nothing from what others cost."""
        return self._dearest(self._amounts(model, given))

    def _amounts(self, model: str, given: int) -> list[int | None]:
        return [self._of(one, given) for one in (model, *self.request.alternatives)]

    @staticmethod
    def _dearest(amounts: list[int | None]) -> int:
        return max((one for one in amounts if one is not None), default=0)

    def _of(self, model: str, given: int) -> int | None:
        price = None if self.prices is None else self.prices.price(self.vendor, model, self.moment)
        if price is None:
            return None
        request = self.request
        bound = request.max_output
        output = self.default_output if bound is None else bound
        return price.estimate(given + self.history, output * request.choices, request.service_tiers)
