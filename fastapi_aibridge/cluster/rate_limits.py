"""Rate limits of initiators, groups, providers and models: counted in Redis for all processes, else in this one.

Admission takes one round trip to Redis, which runs while the start of the request's record is written.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from ..errors import GatewayError, RedisUnavailable
from ..principal import Principal
from ..settings import LimitSettings
from .limit_rules import Counter, Counters, Kind, LimitRules, counters_of
from .process_limits import ProcessLimits, Verdict
from .rate_headers import rate_headers

if TYPE_CHECKING:
    from .redis import SharedRedis

REFUSED_FOR = 1.0
"""Seconds for which a refusal is remembered, so that repeated attempts cost no round trip and no record."""
MAX_REFUSALS = 10_000
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 0.5
"""Longest pause, in seconds, between two attempts to admit a request that waits for other concurrent ones to end."""


class Provider(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def type(self) -> str: ...


class RateLimits:
    """The rate limits in force; `is_on` is false while there are no rules.

    `alone` is called for each request that this process decides by itself because Redis is unavailable.
    """

    def __init__(
        self,
        settings: LimitSettings,
        redis: SharedRedis | None = None,
        *,
        alone: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._alone = alone
        self._process = ProcessLimits(clock=clock)
        self._shared = None
        if redis is not None:
            from .redis_limits import RedisLimits  # needs the extra

            self._shared = RedisLimits(redis)
            redis.when_back(self._renew)
        self._redis = redis
        self._renewing: asyncio.Task[None] | None = None
        self._worker = os.urandom(6).hex()
        self._numbers = itertools.count()
        self._refusals: dict[str, tuple[float, float]] = {}  # by counter: remembered until, in force until
        self.apply(settings)

    def apply(self, settings: LimitSettings) -> None:
        """Put these settings in force. The counts so far are kept."""
        self._rules = LimitRules(settings, shared=self._redis is not None)
        self.is_on = bool(self._rules)
        self.max_wait = settings.max_wait
        self._refuse_alone = settings.on_error == "refuse"
        self._refusals.clear()

    def check(self, principal: Principal, provider: Provider) -> None:
        """Refuse a request over a limit that was just exceeded, before its body is read. Raises `GatewayError`, 429."""
        if self._refusals:
            self._check_refusals(self._rules.counters(principal, provider.name, None), provider.type)

    def begin(self, principal: Principal, provider: Provider, model: str | None, size: int) -> Ticket | None:
        """Begin the admission of a request with a body of `size` bytes. Returns None if no rule applies to it, else a
        ticket, which must be released.

        Raises `GatewayError` (429 or 503) if the request is known to be refused.
        """
        counters = self._rules.counters(principal, provider.name, model)
        if not counters:
            return None
        if self._refusals:
            self._check_refusals(counters, provider.type)
        ticket = Ticket(self, counters, f"{self._worker}{next(self._numbers):x}", provider.type, size)
        ticket.ask()
        return ticket

    # Called by tickets

    def ask(self, ticket: Ticket) -> Verdict | asyncio.Future[Verdict]:
        shared = self._shared
        if shared is not None and shared.available:
            return shared.admit(ticket.counters, ticket.id, ticket.size)
        return self.decide_alone(ticket)

    def decide_alone(self, ticket: Ticket) -> Verdict:
        """Decide without Redis. Raises `GatewayError` (503) if the settings refuse requests then."""
        if self._shared is not None:
            if self._refuse_alone:
                raise GatewayError(
                    503,
                    "limits_unavailable",
                    "the gateway cannot look up what you may do; try again",
                    headers={"retry-after": "1"},
                )
            self._alone()
        return self._process.admit(ticket.counters, ticket.size)

    def enter(self, ticket: Ticket) -> None:
        leases = ticket.counters.concurrent
        if not leases:
            return
        self._process.enter(leases, ticket.id)
        if self._shared is not None and self._renewing is None:
            self._renewing = asyncio.get_running_loop().create_task(self._keep_renewing())

    def leave(self, ticket: Ticket) -> None:
        leases = ticket.counters.concurrent
        if leases:
            self._process.leave(leases, ticket.id)
            if self._shared is not None:
                self._shared.release(leases, ticket.id)

    def count(self, ticket: Ticket, tokens: int, *, is_first: bool) -> None:
        counters = ticket.counters.tokens
        if not counters:
            return
        if self._shared is not None and self._shared.available:
            self._shared.count(counters, ticket.size, tokens, is_first=is_first)
        else:
            self._process.count(counters, ticket.size, tokens, is_first=is_first)

    def refusal(self, counter: Counter, verdict: Verdict) -> GatewayError:
        if counter.kind is not Kind.CONCURRENT and len(self._refusals) < MAX_REFUSALS:
            now = self._clock()
            self._refusals[counter.key] = now + min(verdict.wait, REFUSED_FOR), now + verdict.wait
        return _over(counter, verdict.wait)

    def _check_refusals(self, counters: Counters, provider_type: str) -> None:
        now = self._clock()
        for counter in counters:
            known = self._refusals.get(counter.key)
            if known is None:
                continue
            if now < known[0]:
                wait = known[1] - now
                error = _over(counter, wait)
                error.headers |= rate_headers(provider_type, Counters((counter,)), Verdict(0, wait, [(0, wait)]))
                raise error
            del self._refusals[counter.key]
        if len(self._refusals) >= MAX_REFUSALS:
            self._refusals = {key: one for key, one in self._refusals.items() if now < one[0]}

    # Leases

    async def _keep_renewing(self) -> None:
        from .redis_limits import LEASE

        try:
            while any(True for _ in self._process.running()):
                await asyncio.sleep(LEASE / 3)
                self._renew()
        finally:
            self._renewing = None

    def _renew(self) -> None:
        """Renew the leases of all running requests, also in a Redis that has lost them."""
        if self._shared is not None:
            for key, requests in self._process.running():
                for request in requests:
                    self._shared.renew(key, request)

    # Erasure and end

    async def erase(self, initiator_id: str) -> None:
        """Delete the counts of an initiator's limits. Raises `RedisUnavailable`."""
        begins = counters_of(initiator_id)
        self._process.forget(begins)
        if self._redis is not None:
            await self._redis.delete(begins)

    async def aclose(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait((self._renewing,))
        if self._shared is not None:
            await self._shared.aclose()


class Ticket:
    """The admission of one request, and what it counts. Methods may be called in any order and more than once."""

    __slots__ = (
        "_answer", "_has_left", "_is_counted", "_is_in", "_limits", "_verdict", "counters", "goes_on", "id",
        "provider_type", "size",
    )  # fmt: skip

    def __init__(self, limits: RateLimits, counters: Counters, id_: str, provider_type: str, size: int) -> None:
        self._limits = limits
        self._answer: Verdict | asyncio.Future[Verdict] | None = None
        self._verdict: Verdict | None = None
        self._is_in = False
        self._has_left = False
        self._is_counted = False
        self.counters = counters
        self.id = id_
        self.provider_type = provider_type
        self.size = size
        self.goes_on = False
        """Whether its tokens will be counted after it has been released."""

    def ask(self) -> None:
        """Ask for admission; `admitted` waits for the verdict. Raises `GatewayError` if a refusal is known at once."""
        answer = self._answer = self._limits.ask(self)
        if isinstance(answer, Verdict) and self._may_not_wait(answer):
            raise self._refusal(answer)

    async def admitted(self) -> None:
        """Wait until the request may run. Raises `GatewayError` (429 or 503).

        Over a limit of concurrent requests, admission is retried for up to `max_wait` seconds, as under the limit of a
        single process.
        """
        loop = asyncio.get_running_loop()
        give_up, pause = loop.time() + self._limits.max_wait, FIRST_PAUSE
        while True:
            verdict = await self._answered()
            if verdict.refused_by is None:
                self._enter(verdict)
                return
            if self._may_not_wait(verdict) or loop.time() + pause > give_up:
                raise self._refusal(verdict)
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311
            pause = min(2 * pause, LONGEST_PAUSE)
            self._answer = self._limits.ask(self)

    async def _answered(self) -> Verdict:
        answer = self._answer
        if isinstance(answer, asyncio.Future):
            try:
                # Cancelling the wait must not cancel the question: `release` needs its answer.
                answer = await asyncio.shield(answer) if not answer.done() else answer.result()
            except RedisUnavailable:
                answer = self._answer = self._limits.decide_alone(self)
        assert answer is not None  # noqa: S101 - for the type checker: it has been asked
        return answer

    def _may_not_wait(self, verdict: Verdict) -> bool:
        return verdict.refused_by is not None and self.counters[verdict.refused_by].kind is not Kind.CONCURRENT

    def _refusal(self, verdict: Verdict) -> GatewayError:
        assert verdict.refused_by is not None  # noqa: S101 - for the type checker
        self._verdict = verdict
        error = self._limits.refusal(self.counters[verdict.refused_by], verdict)
        error.headers |= self.headers
        return error

    def _enter(self, verdict: Verdict) -> None:
        self._verdict = verdict
        self._is_in = True
        self._limits.enter(self)

    def count(self, tokens: int) -> None:
        """Count tokens that are known now; the first call replaces those reserved at admission."""
        if self._is_in:
            self._limits.count(self, tokens, is_first=not self._is_counted)
            self._is_counted = True

    def release(self) -> None:
        """End the request."""
        if self._has_left:
            return
        self._has_left = True
        if self._is_in:
            self._leave()
        elif isinstance(self._answer, asyncio.Future):
            self._answer.add_done_callback(self._came_too_late)

    def _came_too_late(self, answer: asyncio.Future[Verdict]) -> None:
        if not answer.cancelled() and answer.exception() is None and answer.result().refused_by is None:
            self._is_in = True
            self._leave()

    def _leave(self) -> None:
        self._limits.leave(self)
        if not self.goes_on and not self._is_counted:
            self.count(0)

    @property
    def headers(self) -> dict[str, str]:
        """The headers with what the limits have left, for the response; empty before the verdict has arrived."""
        if self._verdict is None:
            return {}
        return rate_headers(self.provider_type, self.counters, self._verdict)


def _over(counter: Counter, wait: float) -> GatewayError:
    after = {"retry-after": str(max(1, math.ceil(wait)))}
    whose = counter.whose
    if counter.kind is Kind.CONCURRENT:
        return GatewayError(
            429, "too_many_concurrent_requests", f"{whose} is {counter.limit} concurrent requests", headers=after
        )
    what = "requests" if counter.kind is Kind.REQUESTS else "tokens"
    return GatewayError(
        429, "rate_limit_exceeded", f"{whose} is {counter.limit} {what} in {counter.window:g} s", headers=after
    )
