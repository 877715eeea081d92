"""Prices of the models in the package genai-prices, from the data bundled with it, without network access.

Importing it takes a good part of a second, so this module is imported in a thread, and only if prices are wanted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from functools import cached_property
from importlib.metadata import version
from typing import Any

from genai_prices.data_snapshot import find_provider_by_id, get_snapshot
from genai_prices.types import (
    ModelInfo,
    ModelPrice,
    Provider,
    StartDateConstraint,
    TieredPrices,
    TimeOfDateConstraint,
)

from .model_names import names_of
from .price import EVER, STANDARD, Price, Tier
from .rates import Rates
from .vendor import Vendor

SOURCE = f"genai-prices {version('genai-prices')}"

_KINDS = {
    "input_mtok": "input",
    "output_mtok": "output",
    "cache_read_mtok": "cache_read",
    "cache_write_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h",
    "input_audio_mtok": "audio_input",
    "output_audio_mtok": "audio_output",
    "input_image_mtok": "image_input",
    "output_image_mtok": "image_output",
    "output_reasoning_mtok": "reasoning",
}
_CALLS = {
    "web_searches_kcount": "web_search_requests",
    "social_searches_kcount": "social_search_requests",
    "storage_searches_kcount": "file_search_requests",
    "code_executions_kcount": "code_execution_requests",
}
"""The usages' names of calls, by the list's names of prices per thousand calls."""
_TIERS: dict[str, dict[str, str]] = {
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
    "fast": {"service_tier": "fast", "speed": "fast"},
    "batch": {"processing": "batch"},
}
_BEDROCK = re.compile(r"https://bedrock-(?:runtime|mantle)[a-z-]*\.[a-z0-9-]+\.(?:amazonaws\.com|api\.aws)(?:/|$)")
"""Bedrock's endpoints; the list knows only the plain ones of its runtime."""
_TYPES = {"bedrock": "aws", "copilot": "github-copilot"}
"""The list's names of provider types, where they differ from ours."""


class PriceList:
    """The price list, searched by our providers and by the models' names in requests."""

    @cached_property
    def _providers(self) -> list[Provider]:
        return get_snapshot().providers

    def find(self, vendor: Vendor, model: str, moment: datetime) -> tuple[Price | None, datetime, datetime]:
        """Return the price at this moment (None if the list has none), and the beginning and end of its validity. Takes
        milliseconds for a provider with many models.
        """
        for provider in self._candidates(vendor):
            for name in names_of(model):
                found = provider.find_model(name, all_providers=self._providers)
                if found is not None:
                    is_own = any(found is one for one in provider.models)
                    return _price(found, moment, with_variants=is_own), *_holds(found, moment)
        return None, *EVER

    def _candidates(self, vendor: Vendor) -> Iterator[Provider]:
        """Yield the provider with this base URL; if there is none, the one with the vendor's name, then its type."""
        bedrock = _BEDROCK.match(vendor.base_url) is not None
        for provider in self._providers:
            if provider.id == "aws" if bedrock else re.match(provider.api_pattern, vendor.base_url):
                yield provider
                return
        for name in dict.fromkeys((vendor.name, vendor.type)):
            if (named := find_provider_by_id(self._providers, _TYPES.get(name, name))) is not None:
                yield named


def _price(model: ModelInfo, moment: datetime, *, with_variants: bool) -> Price | None:
    standard = _tier(model.get_prices(moment))
    if standard is None:
        return None
    tiers = {STANDARD: standard}
    if with_variants and model.price_variants:
        for name, context in _TIERS.items():
            if any(_fits(variant.when, context) for variant in model.price_variants):
                tiers[name] = _tier(model.get_prices(moment, context)) or standard
    return Price(SOURCE, moment.date().isoformat(), tiers)


def _fits(when: Mapping[str, str], context: Mapping[str, str]) -> bool:
    return all(context.get(key) == value for key, value in when.items())


def _tier(prices: ModelPrice) -> Tier | None:
    """Return the prices as a tier; None for a model that is not billed by input tokens."""
    given: dict[str, Decimal | TieredPrices] = {
        name: value for name, value in prices.__dict__.items() if value is not None
    }
    starts = sorted({tier.start for value in given.values() if isinstance(value, TieredPrices) for tier in value.tiers})
    rates = []
    for input_tokens in (0, *(start + 1 for start in starts)):
        at = {name: _at(value, input_tokens) for name, value in given.items()}
        dollars = {ours: at[theirs] for theirs, ours in _KINDS.items() if theirs in at}
        if "input" not in dollars:
            return None
        dollars.setdefault("output", dollars["input"])  # embeddings have no output
        calls = {ours: at[theirs] / 1000 for theirs, ours in _CALLS.items() if theirs in at}
        rates.append(Rates(dollars, calls, at.get("requests_kcount", Decimal(0)) / 1000))
    return Tier(rates, starts)


def _at(price: Decimal | TieredPrices, input_tokens: int) -> Decimal:
    if not isinstance(price, TieredPrices):
        return price
    return next((tier.price for tier in reversed(price.tiers) if input_tokens > tier.start), price.base)


def _holds(model: ModelInfo, moment: datetime) -> tuple[datetime, datetime]:
    """Return the nearest moments, before and after this one, at which a price of the model begins or ends."""
    conditions: list[Any] = [*model.prices] if isinstance(model.prices, list) else []
    conditions += model.price_variants or ()
    moments = [*EVER, *(at for one in conditions for at in _turns(one.constraint, moment))]
    return max(at for at in moments if at <= moment), min(at for at in moments if at > moment)


def _turns(constraint: StartDateConstraint | TimeOfDateConstraint | None, moment: datetime) -> Iterator[datetime]:
    if isinstance(constraint, StartDateConstraint):
        yield datetime.combine(constraint.start_date, time(), UTC)
    elif constraint is not None:
        for at in (constraint.start_time, constraint.end_time):
            today = datetime.combine(moment.date(), at, at.tzinfo or UTC)
            yield from (today - timedelta(days=1), today, today + timedelta(days=1))
