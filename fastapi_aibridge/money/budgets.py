"""The budgets of an app, and the accounts of the interceptions to which they apply."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ..budget import Budget
from ..errors import RecorderUnavailable, SettingsError
from ..formats.request import ModelRequest
from ..installing import install_command
from ..observability import Metrics
from ..principal import Principal
from ..recorder.reservations import BudgetRecorder, Counted, CounterKey
from ..settings import Settings
from .account import Account
from .budget_book import EVERYBODY, BudgetBook
from .budget_state import BudgetState
from .budget_warnings import BudgetWarnings, OnBudget
from .estimate import Estimator
from .open_counters import OpenCounter, OpenCounters
from .prices import Prices
from .refusals import unavailable
from .vendor import Vendor

if TYPE_CHECKING:
    from ..cluster.version_watch import VersionWatch
    from .budget_store import BudgetStore

log = logging.getLogger(__name__)


class Budgets:
    """All budgets of the gateway. A reload replaces `configured`, the admin API `managed`, both through `replace`."""

    def __init__(
        self,
        recorder: object,
        prices: Prices | None,
        metrics: Metrics,
        on_budget: OnBudget | None = None,
    ) -> None:
        """`recorder` must be a `BudgetRecorder` if there are to be budgets; others keep no counters."""
        self.is_on = False
        """Whether there are budgets of settings or the admin API; those of principals do not count."""
        self.refuses_unpriced = False
        self.refuses_on_error = True
        self.default_output = 4096
        self.configured: Sequence[Budget] = ()
        self.managed: Sequence[Budget] = ()
        self.prices = prices
        self._book = BudgetBook()
        self._behind: set[tuple[str, str, str]] = set()
        """The keys of new budgets whose counters have not caught up with the records yet."""
        self.store: BudgetStore | None = None
        """The store of the admin API's budgets; None without a database or counters."""
        self._recorder = recorder if isinstance(recorder, BudgetRecorder) else None
        self._metrics = metrics
        self._open: OpenCounters | None = None
        self._warnings: BudgetWarnings | None = None
        if self._recorder is not None:
            counters = self._recorder.counters
            self._open = OpenCounters(counters)
            self._warnings = BudgetWarnings(counters, metrics, on_budget)
            counters.changed = self._changed

    @asynccontextmanager
    async def kept(self, settings: Settings, versions: VersionWatch | None) -> AsyncIterator[Budgets]:
        """Keep budgets in force while the block runs: those of the settings, and those of the admin API as they change.

        Raises `SettingsError`, and the errors of the database's driver.
        """
        self.check(settings)
        self.apply(settings, self.prices)
        if versions is not None and self._recorder is not None:
            from .budget_store import VERSION, BudgetStore

            self.store = BudgetStore(versions.database)
            known = versions.version(VERSION)
            self.replace(managed=await self.store.read())
            versions.follow(VERSION, self.reload, known=known)
        try:
            yield self
        finally:
            if self._warnings is not None:
                await self._warnings.aclose()

    async def reload(self, _: int = 1) -> None:
        """Read the admin API's budgets again. Raises the errors of the database's driver, and `RecorderUnavailable`."""
        if self.store is None:
            return
        read = await self.store.read()
        known = {budget.key for budget in self.managed}
        self._behind |= {budget.key for budget in read} - known
        self.replace(managed=read)
        behind = sorted(self._behind)
        if behind and self._recorder is not None:
            await self._recorder.counters.catch_up(behind)
            self._behind.difference_update(behind)

    def check(self, settings: Settings) -> None:
        """Raise `SettingsError` if settings have budgets that could not work: without counters, or without prices."""
        if settings.budgets and self._recorder is None:
            raise SettingsError(
                "AIBRIDGE_BUDGETS needs a recorder that keeps counters: leave AIBRIDGE_RECORDER__ENABLED true, or give "
                "AIBridge a recorder that is one (SQLRecorder, MemoryRecorder)"
            )
        if settings.budgets and self.prices is None and not settings.prices:
            raise SettingsError(f"AIBRIDGE_BUDGETS needs prices: {install_command('prices')}, or set AIBRIDGE_PRICES")

    def apply(self, settings: Settings, prices: Prices | None) -> None:
        """Apply settings that `check` has accepted."""
        self.prices = prices
        self.refuses_unpriced = settings.unpriced == "refuse"
        self.refuses_on_error = settings.budget_on_error == "refuse"
        self.default_output = settings.budget_default_output
        self.replace(configured=settings.budgets)

    def replace(self, *, configured: Sequence[Budget] | None = None, managed: Sequence[Budget] | None = None) -> None:
        """Replace the budgets of the settings or the admin API; None keeps them."""
        self.configured = self.configured if configured is None else configured
        self.managed = self.managed if managed is None else managed
        self._book = BudgetBook([*self.configured, *self.managed])
        if self._open is not None:
            self._open.warn_again()
        was_on, self.is_on = self.is_on, len(self._book) > 0
        if self.is_on and not was_on and not self.refuses_unpriced:
            self._warn()

    def _warn(self) -> None:
        """Log the spending that budgets do not limit."""
        if self.prices is None:
            log.warning(
                "budgets limit nothing, because no model has a price: %s, or set AIBRIDGE_PRICES",
                install_command("prices"),
            )
        else:
            log.warning(
                "budgets do not limit models without a price: set AIBRIDGE_UNPRICED to 'refuse' to refuse such models"
            )

    async def account(
        self, principal: Principal, vendor: Vendor, request: ModelRequest, started_at: datetime
    ) -> Account | None:
        """Return the account of an interception; None if no budget applies to the principal.

        Raises `GatewayError` (503) if the counters cannot be read, or returns None then if settings allow that.
        """
        limits = self._book.limits(principal, started_at)
        if not limits:
            return None
        recorder, opened = self._recorder, self._open
        try:
            if recorder is None or opened is None:
                raise RecorderUnavailable("no recorder keeps counters")
            counters = opened.known(limits) or await opened.open(limits)
            history = await self._history(recorder, vendor, request) if request.references else 0
        except RecorderUnavailable:
            if self.refuses_on_error:
                raise unavailable() from None
            return None
        estimate = Estimator(self.prices, vendor, request, self.default_output, started_at, history)
        return Account(self, recorder, principal, counters, limits, estimate)

    async def _history(self, recorder: BudgetRecorder, vendor: Vendor, request: ModelRequest) -> int:
        """Return the tokens of the earlier response that the request continues, since the provider reads them again."""
        for reference in request.references:
            if reference.kind == "response" and reference.id:
                return await recorder.counters.tokens_of(vendor.name, reference.id)
        return 0

    def listed(self) -> Sequence[tuple[Budget, str]]:
        """Return all budgets except those of principals, sorted by key, each with its source: `settings` or `admin`."""
        sources = [(budget, "settings") for budget in self.configured]
        sources += [(budget, "admin") for budget in self.managed]
        return sorted(sources, key=lambda one: one[0].key)

    async def states(self, principal: Principal) -> Sequence[BudgetState]:
        """Return the states of the principal's own budgets and those of its groups. The budgets for everybody are left
        out, as only administrators may see them. Raises `RecorderUnavailable`.
        """
        limits = self._book.limits(principal, datetime.now(UTC))
        limits = [limit for limit in limits if limit.counter.scope != EVERYBODY]
        counted = await self.counted([limit.counter for limit in limits])
        return [BudgetState.of(*one) for one in zip(limits, counted, strict=True)]

    async def counted(self, keys: Sequence[CounterKey]) -> Sequence[Counted]:
        """Return the amounts of these counters, opening new ones. Raises `RecorderUnavailable`."""
        if not keys:
            return []
        if self._recorder is None:
            raise RecorderUnavailable("no recorder keeps counters")
        counters = self._recorder.counters
        found = await counters.counted(keys)
        if missing := [key for key in keys if key not in found]:
            await counters.open(missing)
            found = await counters.counted(keys)
        return [found[key] for key in keys]

    def refused(self, counter: OpenCounter) -> None:
        self._metrics.over_budget(counter.key.scope, counter.key.period)
        if self._warnings is not None:
            self._warnings.look(counter, refused=True)

    def _changed(self, counters: Mapping[int, Counted]) -> None:
        if self._open is None or self._warnings is None:
            return
        for counter in self._open.saw(counters):
            self._warnings.look(counter)
