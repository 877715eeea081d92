"""Prices from the settings."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from fnmatch import fnmatchcase

from ..settings import ModelPrices, TokenPrices
from .model_names import names_of
from .price import STANDARD, Price, Tier
from .rates import KINDS, Rates
from .vendor import Vendor

SOURCE = "settings"


class ConfiguredPrices:
    """The prices of the settings: by a provider's name or type, then by a model's name or a pattern (`house-*`)."""

    def __init__(self, prices: Mapping[str, Mapping[str, ModelPrices]]) -> None:
        self._prices = prices

    def find(self, vendor: Vendor, model: str, moment: datetime) -> Price | None:
        for provider in dict.fromkeys((vendor.name, vendor.type)):
            if (models := self._prices.get(provider)) and (found := _model(models, model)) is not None:
                return Price(SOURCE, moment.date().isoformat(), _tiers(found))
        return None


def _model(models: Mapping[str, ModelPrices], model: str) -> ModelPrices | None:
    for name in names_of(model):
        if (found := models.get(name)) is not None:
            return found
    patterns = sorted((name for name in models if "*" in name), key=len, reverse=True)
    return next((models[pattern] for pattern in patterns if fnmatchcase(model, pattern)), None)


def _tiers(prices: ModelPrices) -> dict[str, Tier]:
    calls = {name: _decimal(each) for name, each in prices.calls.items()}
    base = _dollars(prices)
    long = prices.long_context
    standard = [Rates(base, calls)]
    if long is not None:
        standard.append(Rates(_dollars(long), calls))
    tiers = {STANDARD: Tier(standard, () if long is None else (long.above,))}
    for name, of_tier in prices.service_tiers.items():
        tiers[name] = Tier([Rates(_dollars(of_tier), calls)])
    return tiers


def _dollars(prices: TokenPrices) -> dict[str, Decimal]:
    return {kind: _decimal(value) for kind in KINDS if (value := getattr(prices, kind)) is not None}


def _decimal(dollars: float) -> Decimal:
    return Decimal(str(dollars))
