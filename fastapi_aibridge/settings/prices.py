"""Prices of models in the settings, in US dollars for a million tokens."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from .values import Count, no_boolean

Dollars = Annotated[float, BeforeValidator(no_boolean), Field(ge=0, le=1_000_000, allow_inf_nan=False)]


class _Prices(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, defer_build=True)


class TokenPrices(_Prices):
    """Prices in US dollars for a million tokens.

    If a price is None, cached input costs as much as input, a cache write 1.25 times as much, or twice as much if it
    lasts an hour; audio, images and reasoning cost as much as text.
    """

    input: Dollars
    output: Dollars
    cache_read: Dollars | None = None
    cache_write: Dollars | None = None
    """The price of a write that lasts five minutes, or for which the provider reports no lifetime."""
    cache_write_1h: Dollars | None = None
    audio_input: Dollars | None = None
    audio_output: Dollars | None = None
    image_input: Dollars | None = None
    image_output: Dollars | None = None
    reasoning: Dollars | None = None


class LongContextPrices(TokenPrices):
    """Prices for all tokens of a message with a long prompt."""

    above: Count = Field(ge=1)
    """Tokens of the prompt, cached ones included, up to which the model's other prices apply."""


class ModelPrices(TokenPrices):
    calls: dict[str, Dollars] = Field(default_factory=dict)
    """Dollars for one call of a server tool, by the name under which usages count it, such as `web_search_requests`."""
    long_context: LongContextPrices | None = None
    service_tiers: dict[str, TokenPrices] = Field(default_factory=dict)
    """Prices by the tier that the provider reports: `flex`, `priority`, `batch`."""
