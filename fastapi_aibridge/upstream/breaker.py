"""Circuit breakers: an endpoint and model that keeps failing is left alone for a while.

No I/O and no timers: callers say what they are about to do and how it went, and the clock is read then.
"""

from __future__ import annotations

import math
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from ..errors import GatewayError
from ..settings import CircuitBreakerSettings

MAX_BREAKERS = 1000
"""Breakers of one provider. Clients choose the models, so that without a bound they would choose the memory, too."""

_FIRST = 0
"""The generation of a breaker that has never been open."""


class CircuitState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class CircuitOpen(GatewayError):
    """Nothing goes upstream for now."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            503,
            "circuit_open",
            "the provider has been failing for this endpoint and model, and is left alone for a while",
            headers={"retry-after": str(max(1, math.ceil(seconds)))},
        )


@dataclass(frozen=True, slots=True)
class Circuit:
    """One breaker at one moment."""

    route: str
    model: str
    state: CircuitState
    failures: int
    """Consecutive ones, as many as are remembered: up to the threshold."""
    retry_in: float
    """Seconds until the next probe may go; 0 where requests may go now."""


class CircuitBreakers:
    """The breakers of one provider, by endpoint and model, for all principals.

    `failure_threshold` consecutive failures that come within `interval` seconds open a breaker for `timeout` seconds;
    then at most `max_requests` probes run at a time. The first success closes it, a failed probe opens it again.

    Only what has failed has a breaker, so that a healthy provider costs one look into an empty dictionary.
    """

    def __init__(
        self,
        settings: CircuitBreakerSettings,
        *,
        max_breakers: int = MAX_BREAKERS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._enabled = settings.enabled
        self._threshold = settings.failure_threshold
        self._interval = settings.interval
        self._timeout = settings.timeout
        self._max_probes = settings.max_requests
        self._max_breakers = max_breakers
        self._clock = clock
        self._breakers: OrderedDict[tuple[str, str], _Breaker] = OrderedDict()  # least recently failed first
        self.trips: Counter[str] = Counter()
        """How often a breaker of each endpoint has opened."""
        self.rejections: Counter[str] = Counter()
        """How many requests each endpoint has refused."""

    def admit(self, route: str, model: str) -> int:
        """Ask before each request that goes upstream. Raises `CircuitOpen`.

        What it returns goes into exactly one of `succeeded`, `failed` and `abandoned`.
        """
        breaker = self._breakers.get((route, model)) if self._breakers else None
        if breaker is None:
            return _FIRST
        if breaker.state is CircuitState.CLOSED:
            return breaker.generation
        now = self._clock()
        if breaker.state is CircuitState.OPEN and now >= breaker.until:
            breaker.become(CircuitState.HALF_OPEN)
        if breaker.state is CircuitState.HALF_OPEN and breaker.probes < self._max_probes:
            breaker.probes += 1
            return breaker.generation
        self.rejections[route] += 1
        raise CircuitOpen(breaker.until - now if breaker.state is CircuitState.OPEN else 1)

    def succeeded(self, route: str, model: str, generation: int) -> None:
        """The upstream answered, and not that it is overloaded."""
        if not self._breakers:
            return
        breaker = self._breakers.get((route, model))
        if breaker is None or breaker.generation != generation:
            return
        if breaker.state is CircuitState.HALF_OPEN:
            breaker.become(CircuitState.CLOSED)
        elif generation == _FIRST:
            del self._breakers[route, model]
        else:
            breaker.failures.clear()

    def failed(self, route: str, model: str, generation: int) -> None:
        """The upstream could not be reached, kept silent, or answered that it is overloaded."""
        if not self._enabled:
            return
        breaker = self._breakers.get((route, model))
        if breaker is None and generation == _FIRST:
            breaker = self._add(route, model)
        # A request from before the breaker last opened or closed tells nothing of the time since.
        if breaker is None or breaker.generation != generation:
            return
        self._breakers.move_to_end((route, model))
        now = self._clock()
        breaker.failures.append(now)
        in_time = now - breaker.failures[0] <= self._interval
        if breaker.state is CircuitState.HALF_OPEN or (len(breaker.failures) == self._threshold and in_time):
            breaker.become(CircuitState.OPEN)
            breaker.until = now + self._timeout
            self.trips[route] += 1

    def abandoned(self, route: str, model: str, generation: int) -> None:
        """The request ended before the upstream had shown how it is: a probe gives its place back."""
        breaker = self._breakers.get((route, model))
        if breaker is not None and breaker.generation == generation and breaker.state is CircuitState.HALF_OPEN:
            breaker.probes -= 1

    def __iter__(self) -> Iterator[Circuit]:
        """Those that remember something, newest failure first."""
        now = self._clock()
        for (route, model), breaker in reversed(self._breakers.items()):
            state, wait = breaker.state, max(0.0, breaker.until - now)
            if state is CircuitState.OPEN and not wait:
                state = CircuitState.HALF_OPEN
            elif state is not CircuitState.OPEN:
                wait = 0.0
            yield Circuit(route, model, state, len(breaker.failures), wait)

    def __len__(self) -> int:
        return len(self._breakers)

    def count(self) -> Mapping[tuple[str, CircuitState], int]:
        """How many breakers each endpoint has in each state but `closed`."""
        return Counter((one.route, one.state) for one in self if one.state is not CircuitState.CLOSED)

    def _add(self, route: str, model: str) -> _Breaker:
        if len(self._breakers) >= self._max_breakers:
            not_open = (key for key, one in self._breakers.items() if one.state is not CircuitState.OPEN)
            del self._breakers[next(not_open, next(iter(self._breakers)))]
        breaker = self._breakers[route, model] = _Breaker(self._threshold)
        return breaker


class _Breaker:
    __slots__ = ("failures", "generation", "probes", "state", "until")

    def __init__(self, threshold: int) -> None:
        self.state = CircuitState.CLOSED
        self.generation = _FIRST
        self.failures: deque[float] = deque(maxlen=threshold)
        self.until = -math.inf
        self.probes = 0

    def become(self, state: CircuitState) -> None:
        """Begin anew: what was admitted before has no say any more."""
        self.state = state
        self.generation += 1
        self.probes = 0
        if state is CircuitState.CLOSED:
            self.failures.clear()
