"""The most that an upstream call can cost, as far as its request tells."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ..formats.large_text import LARGE, BodyText
from ..formats.request import ModelRequest
from .prices import Prices
from .vendor import Vendor

BYTES_OF_A_TOKEN = 3
"""Of a request's JSON. Prose has more, so that this is on the safe side; digits and rare scripts may have fewer."""


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

    def __call__(self, model: str, body: BodyText) -> int | None:
        """Micro-dollars; None where the model has no price."""
        if self.prices is None:
            return None
        price = self.prices.price(self.vendor, model, self.moment)
        if price is None:
            return None
        request = self.request
        bound = request.max_output
        output = self.default_output if bound is None else bound
        given = -(-len(body) // BYTES_OF_A_TOKEN)
        # What goes into a cache costs more than what does not.
        if len(body) >= LARGE:
            given = given * 5 // 4
        elif body.find(b'"cache_control"') >= 0:
            given = given * 2 if body.find(b'"1h"') >= 0 else given * 5 // 4
        return price.estimate(given, output * request.choices, request.service_tiers)
