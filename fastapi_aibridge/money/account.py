"""The budgets of one interception: reservations for its calls, and the header that warns its client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..budget import dollars
from ..errors import GatewayError, RecorderUnavailable
from ..principal import Principal
from ..recorder import Interception
from ..recorder.reservations import BudgetRecorder, OverBudget, Reservation
from .budget_book import EVERYBODY, Limit
from .budget_warnings import LEVELS
from .estimate import Estimator
from .open_counters import OpenCounter
from .refusals import not_priced, over_budget, unavailable

HEADER = "x-aibridge-budget"


class Policy(Protocol):
    """The part of `Budgets` that an account uses."""

    refuses_unpriced: bool
    refuses_on_error: bool

    def refused(self, counter: OpenCounter) -> None:
        """Count a refusal and warn that the budget is used up."""


class Account:
    """The account of an interception with budgets: call `start` first, then `reserve` before each further call."""

    __slots__ = (
        "_counters",
        "_estimate",
        "_interception_id",
        "_limits",
        "_policy",
        "_principal",
        "_recorder",
        "fallback",
    )

    def __init__(
        self,
        policy: Policy,
        recorder: BudgetRecorder,
        principal: Principal,
        counters: Sequence[OpenCounter],
        limits: Sequence[Limit],
        estimate: Estimator,
    ) -> None:
        """`limits` are this principal's, one for each counter; others that share a counter may have other limits."""
        self._policy = policy
        self._recorder = recorder
        self._principal = principal
        self._counters = counters
        self._limits = limits
        self._estimate = estimate
        self._interception_id = ""
        self.fallback: str | None = None
        """The cheaper model that is requested instead, if a budget required it."""

    async def start(self, interception: Interception, given: int) -> None:
        """Record the start, and reserve what the first call can cost with `given` tokens of input.

        If the requested model does not fit, the budget's fallback model is tried. Raises `GatewayError` (429 over a
        budget, 403 for a model without a price if settings refuse it), and whatever the recorder raises.
        """
        self._interception_id = interception.id
        model = interception.model
        estimate = self._priced(model, given)
        while True:
            asked = self._asked(estimate)
            try:
                await self._recorder.start_within(interception, asked)
            except OverBudget as over:
                limit = self._limits[self._counters.index(self._counter(over))]
                cheaper = limit.budget.fallback_model
                if cheaper is None or not self._may_use(cheaper, model, given) or limit.amount <= 0:
                    raise self._refusal(over, asked.estimate) from None
                self.fallback = interception.upstream_model = cheaper
                estimate = self._priced(cheaper, given)
            else:
                return

    async def reserve(self, model: str, given: int, spent: int) -> None:
        """Reserve for a further call with `given` tokens of input; `spent` is the cost of the earlier calls in
        micro-dollars. Raises `GatewayError`.
        """
        asked = self._asked(self._priced(self.fallback or model, given), spent)
        try:
            await self._recorder.reserve(asked)
        except OverBudget as over:
            raise self._refusal(over, asked.estimate) from None
        except RecorderUnavailable:
            if self._policy.refuses_on_error:
                raise unavailable() from None

    def _may_use(self, cheaper: str, model: str, given: int) -> bool:
        return (
            self.fallback is None
            and cheaper != model
            and self._principal.allows(cheaper)
            and not (self._policy.refuses_unpriced and self._estimate(cheaper, given) is None)
        )

    def _priced(self, model: str, given: int) -> int:
        amount = self._estimate(model, given)
        if amount is not None:
            return amount
        if self._policy.refuses_unpriced:
            raise not_priced(model)
        return self._estimate.of_priced(model, given)

    def _asked(self, estimate: int, spent: int = 0) -> Reservation:
        limits = [(one.id, limit.amount) for one, limit in zip(self._counters, self._limits, strict=True)]
        return Reservation(self._interception_id, estimate, limits, spent)

    def _refusal(self, over: OverBudget, estimate: int) -> GatewayError:
        counter = self._counter(over)
        self._policy.refused(counter)
        error = over_budget(counter, self._limits[self._counters.index(counter)], estimate)
        error.headers.update(self.headers())
        return error

    def _counter(self, over: OverBudget) -> OpenCounter:
        return next(counter for counter in self._counters if counter.id == over.counter)

    def headers(self) -> dict[str, str]:
        """Return the header `X-AIBridge-Budget` for the budget with the least left, if any is nearly spent."""
        # The total spending of everybody is shown to administrators only.
        warned = [
            (limit.amount - spent, spent, limit)
            for one, limit in zip(self._counters, self._limits, strict=True)
            if 0 < limit.amount * LEVELS[-1] <= (spent := one.counted.spent) * 100 and one.key.scope != EVERYBODY
        ]
        if not warned:
            return {}
        _, spent, limit = min(warned, key=lambda one: one[0])
        text = (
            f"{limit.counter.period}; spent={dollars(spent)}; limit={dollars(limit.amount)}; "
            f"resets={limit.resets_at:%Y-%m-%dT%H:%M:%SZ}"
        )
        return {HEADER: text}
