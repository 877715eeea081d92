"""Prices by provider and model: those of the settings first, then those of genai-prices."""

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
"""Models whose price is remembered: their names are the callers'."""
_MOST_UNPRICED = 100
"""Models without a price that are told of."""

_Known = tuple[Price | None, datetime, datetime]
"""A price, and from when to when it holds."""


class Prices:
    """What models cost. There are none of genai-prices before `ready` has been awaited once.

    Fields that change: `_known` and `unpriced`, which have a bound; `_list` and `is_ready`, once; `_configured` with a
    reload.
    """

    def __init__(self, configured: Mapping[str, Mapping[str, ModelPrices]], *, listed: bool = True) -> None:
        """`listed` says whether genai-prices is asked for what is not configured."""
        self._configured = ConfiguredPrices(configured)
        self._listed = listed
        self._list: PriceList | None = None
        self._loading: asyncio.Future[None] | None = None
        self._known: dict[tuple[str, str], _Known] = {}
        self.is_ready = not listed
        self.unpriced: set[tuple[str, str]] = set()
        """Providers and models that were used and have no price."""

    @classmethod
    def wanted(cls, configured: Mapping[str, Mapping[str, ModelPrices]]) -> Prices | None:
        """None where nobody wants to know what requests cost: no price is configured, and the extra `prices`, which
        brings genai-prices, is not installed.
        """
        listed = importlib.util.find_spec("genai_prices") is not None
        return cls(configured, listed=listed) if listed or configured else None

    def apply(self, configured: Mapping[str, Mapping[str, ModelPrices]]) -> None:
        """Go on with other configured prices, or providers."""
        self._configured = ConfiguredPrices(configured)
        self._known.clear()
        self.unpriced.clear()

    def load(self) -> asyncio.Future[None]:
        """Begin to load genai-prices, in a thread. Where that fails, its models have no price."""
        if self._loading is None:
            self._loading = asyncio.ensure_future(self._load())
        return self._loading

    async def ready(self) -> None:
        """Load it, and wait for that."""
        await asyncio.shield(self.load())

    async def aclose(self) -> None:
        """Wait for nothing any more."""
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
        """The price of the model at this moment, which is aware of its time zone; None where nobody has one."""
        known = self._known.get((vendor.name, model))
        if known is None or not known[1] <= moment < known[2]:
            known = self._find(vendor, model, moment.astimezone(UTC))
            self._remember((vendor.name, model), known)
        return known[0]

    def missing(self, vendor: Vendor, model: str) -> None:
        """Note that a model without a price was used; told in the log, once for each."""
        if (vendor.name, model) not in self.unpriced and len(self.unpriced) < _MOST_UNPRICED:
            self.unpriced.add((vendor.name, model))
            logger.warning(
                "model %.100r of provider %s has no price, so its cost is not known and no budget limits it: "
                "give it one in AIBRIDGE_PRICES",
                model, vendor.name,
            )  # fmt: skip

    def _find(self, vendor: Vendor, model: str, moment: datetime) -> _Known:
        day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
        # A price tells the day on which it was in force.
        tomorrow = day + timedelta(days=1)
        if (configured := self._configured.find(vendor, model, moment)) is not None:
            return configured, day, tomorrow
        if self._list is None:
            return (None, *EVER) if self.is_ready else (None, moment, moment)
        found, since, until = self._list.find(vendor, model, moment)
        return (found, since, until) if found is None else (found, max(since, day), min(until, tomorrow))

    def _remember(self, key: tuple[str, str], found: _Known) -> None:
        """Keep the newer of two prices: more requests begin now than have begun before it changed."""
        known = self._known.pop(key, None)
        if len(self._known) >= _MOST:
            del self._known[next(iter(self._known))]
        self._known[key] = found if known is None or known[1] < found[1] else known


def _price_list() -> PriceList:
    found: PriceList = importlib.import_module(".price_list", __package__).PriceList()
    return found
