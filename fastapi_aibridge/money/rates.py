"""The rates for tokens and calls under one set of conditions: one service tier and one size of prompt."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from ..recorder.records import TokenUsage

SCALE = 1_000_000
"""Rates are integers, in millionths of a micro-dollar per token or call, so that sums are exact."""
DEAREST = 10**12
"""Micro-dollars to which a message's cost is capped, so that sums of costs fit into a database's integers."""

_INPUTS = ("audio_input", "image_input")
_OUTPUTS = ("audio_output", "image_output", "reasoning")
KINDS = ("input", "output", "cache_read", "cache_write", "cache_write_1h", *_INPUTS, *_OUTPUTS)
"""The kinds of tokens that may have a price, in US dollars per million tokens."""


class Rates:
    """The prices of tokens by kind, of calls by their name in usages, and of each message.

    Kinds without a price of their own are not free: cached input costs as much as input, a cache write 1.25 times and a
    one-hour cache write 2 times the input price; audio, images and reasoning cost as much as text.
    """

    __slots__ = (
        "_beside_input", "_beside_output", "_cache_read", "_cache_write", "_calls", "_dearest_output", "_hour",
        "_input", "_message", "_output", "as_recorded",
    )  # fmt: skip

    def __init__(
        self, dollars: Mapping[str, Decimal], calls: Mapping[str, Decimal] | None = None, message: Decimal = Decimal(0)
    ) -> None:
        """`dollars` are prices per million tokens, at least `input` and `output`; `calls` and `message` per item."""
        given = dollars["input"]
        written = dollars.get("cache_write", given * Decimal("1.25"))
        self._input = _scaled(given)
        self._output = _scaled(dollars["output"])
        self._cache_read = _scaled(dollars.get("cache_read", given))
        self._cache_write = _scaled(written)
        self._hour = _scaled(dollars.get("cache_write_1h", given * 2)) - self._cache_write
        # Usages include these tokens in input or output, so only the difference in price is added.
        self._beside_input = [(kind, _scaled(dollars[kind]) - self._input) for kind in _INPUTS if kind in dollars]
        self._beside_output = [(kind, _scaled(dollars[kind]) - self._output) for kind in _OUTPUTS if kind in dollars]
        self._dearest_output = self._output + max([0, *(difference for _, difference in self._beside_output)])
        self._calls = {name: _scaled(each * SCALE) for name, each in (calls or {}).items()}
        self._message = _scaled(message * SCALE)
        self.as_recorded: dict[str, Any] = {kind: float(dollars[kind]) for kind in KINDS if kind in dollars}
        """The prices in the form of the record."""
        self.as_recorded.setdefault("cache_read", float(given))
        self.as_recorded.setdefault("cache_write", float(written))
        self.as_recorded.setdefault("cache_write_1h", float(given * 2))
        if self._calls:
            self.as_recorded["calls"] = {name: float(each) for name, each in (calls or {}).items()}
        if message:
            self.as_recorded["message"] = float(message)

    def cost(self, usage: TokenUsage) -> int:
        """Return the cost in millionths of a micro-dollar."""
        total = (
            usage.input_tokens * self._input
            + usage.output_tokens * self._output
            + usage.cache_read_tokens * self._cache_read
            + usage.cache_write_tokens * self._cache_write
            + self._message
        )
        if extra := usage.extra:
            if hour := extra.get("cache_creation_1h"):
                total += min(hour, usage.cache_write_tokens) * self._hour
            for kind, difference in self._beside_input:
                total += min(extra.get(kind, 0), usage.input_tokens) * difference
            for kind, difference in self._beside_output:
                total += min(extra.get(kind, 0), usage.output_tokens) * difference
            if self._calls:
                for name, number in extra.items():
                    if each := self._calls.get(name):
                        total += number * each
        return total

    def estimate(self, input_tokens: int, output_tokens: int) -> int:
        """Return the most that this costs, in millionths of a micro-dollar, with all output of the dearest kind."""
        return input_tokens * self._input + output_tokens * self._dearest_output + self._message


def micro_dollars(scaled: int) -> int:
    """Convert millionths of a micro-dollar to micro-dollars, rounded, and limited to 0 up to `DEAREST`."""
    return min(max(0, (scaled + SCALE // 2) // SCALE), DEAREST)


def _scaled(dollars: Decimal) -> int:
    # A dollar per million tokens is a micro-dollar per token.
    return round(dollars * SCALE)
