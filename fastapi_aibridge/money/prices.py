"""Prices by provider and model: first from the settings, then from genai-prices."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from ..settings import ModelPrices
from .configured import ConfiguredPrices
from .price import EVER, Price
from .vendor import Vendor

if TYPE_CHECKING:
    from .price_list import PriceList

logger = logging.getLogger(__name__)

_MOST = 4096
"""Models whose price is cached; limited because clients choose the names."""
_MOST_UNPRICED = 100
"""Models without a price that are logged."""

_Known = tuple[Price | None, datetime, datetime]
"""A price, and the beginning and end of its validity."""


class Prices:
    """The prices of models. Prices of genai-prices are missing until `ready` has been awaited once.

    Fields that change: `_known`, `_answered` and `unpriced`, which have a bound; `_loading`, `_list` and `is_ready`,
    once; `_configured` at a reload.
    """

    def __init__(self, configured: Mapping[str, Mapping[str, ModelPrices]], *, listed: bool = True) -> None:
        """`listed` says whether genai-prices is used for models that the settings give no price."""
        self._configured = ConfiguredPrices(configured)
        self._listed = listed
        self._list: PriceList | None = None
        self._loading: asyncio.Future[None] | None = None
        self._known: dict[tuple[str, str], _Known] = {}
        self._answered: dict[tuple[str, str], str] = {}
        """The models that have answered for deployments and aliases, by provider and the name in requests."""
        self.is_ready = not listed
        self.unpriced: set[tuple[str, str]] = set()
        """Pairs of a provider's name and a model that was used but has no price."""

    @classmethod
    def wanted(cls, configured: Mapping[str, Mapping[str, ModelPrices]]) -> Prices | None:
        """Return the prices; None if there can be none: none are configured, and the extra `prices`, which installs
        genai-prices, is missing.
        """
        listed = importlib.util.find_spec("genai_prices") is not None
        return cls(configured, listed=listed) if listed or configured else None

    def apply(self, configured: Mapping[str, Mapping[str, ModelPrices]]) -> None:
        """Replace the configured prices and clear what is cached; also necessary after a change of providers."""
        self._configured = ConfiguredPrices(configured)
        self._known.clear()
        self._answered.clear()
        self.unpriced.clear()

    def load(self) -> asyncio.Future[None]:
        """Start to load genai-prices in a thread. If that fails, its models have no price."""
        if self._loading is None:
            self._loading = asyncio.ensure_future(self._load())
        return self._loading

    async def ready(self) -> None:
        """Load genai-prices if necessary, and wait for it."""
        await asyncio.shield(self.load())

    async def aclose(self) -> None:
        """Cancel loading."""
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait((self._loading,))

    async def _load(self) -> None:
        if self.is_ready:
            return
        try:
            self._list = await asyncio.to_thread(_price_list)
        except Exception:
            logger.exception("genai-prices cannot be read: only models in AIBRIDGE_PRICES have a price")
        self.is_ready = True

    def price(self, vendor: Vendor, model: str, moment: datetime) -> Price | None:
        """Return the model's price at this moment, a timezone-aware datetime; None if there is no price."""
        known = self._known.get((vendor.name, model))
        if known is None or not known[1] <= moment < known[2]:
            known = self._find(vendor, model, moment.astimezone(UTC))
            self._remember((vendor.name, model), known)
        return known[0]

    def expected(self, vendor: Vendor, model: str, moment: datetime) -> Price | None:
        """Return the price of a model that has not answered yet: that of a deployment or an alias is known from its
        last answer.
        """
        price = self.price(vendor, model, moment)
        if price is None and (answered := self._answered.get((vendor.name, model))) is not None:
            price = self.price(vendor, answered, moment)
        return price

    def answered(self, vendor: Vendor, model: str, answered: str) -> None:
        """Note the model that has answered for one without a price of its own."""
        key = vendor.name, model
        if key not in self._answered and len(self._answered) >= _MOST:
            del self._answered[next(iter(self._answered))]
        self._answered[key] = answered

    def missing(self, vendor: Vendor, model: str) -> None:
        """Note that a model without a price was used; each is logged once."""
        if (vendor.name, model) not in self.unpriced and len(self.unpriced) < _MOST_UNPRICED:
            self.unpriced.add((vendor.name, model))
            logger.warning(
                "model %.100r of provider %s has no price, so its cost is not known and no budget limits it: "
                "give it one in AIBRIDGE_PRICES",
                model, vendor.name,
            )  # fmt: skip

    def _find(self, vendor: Vendor, model: str, moment: datetime) -> _Known:
        day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
        # A price names the day on which it was in force, so it is valid until midnight at most.
        tomorrow = day + timedelta(days=1)
        if (configured := self._configured.find(vendor, model, moment)) is not None:
            return configured, day, tomorrow
        if self._list is None:
            return (None, *EVER) if self.is_ready else (None, moment, moment)
        found, since, until = self._list.find(vendor, model, moment)
        return (found, since, until) if found is None else (found, max(since, day), min(until, tomorrow))

    def _remember(self, key: tuple[str, str], found: _Known) -> None:
        """Cache the newer of two prices, since more requests start now than before the price changed."""
        known = self._known.pop(key, None)
        if len(self._known) >= _MOST:
            del self._known[next(iter(self._known))]
        self._known[key] = found if known is None or known[1] < found[1] else known


def _price_list() -> PriceList:
    found: PriceList = importlib.import_module(".price_list", __package__).PriceList()
    return found
