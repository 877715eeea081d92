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
from typing import NamedTuple

from ..errors import GatewayError
from ..settings import CircuitBreakerSettings

MAX_BREAKERS = 1000
"""Breakers of one provider, those of all and those of single principals each. Clients choose the models, so that
without a bound they would choose the memory, too."""
MAX_MODEL = 256
"""Characters of a model's name that tell breakers apart."""

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


class Admission(NamedTuple):
    """What a request was admitted to: which periods of the circuits its outcome speaks of."""

    shared: int = _FIRST
    own: int = _FIRST


_ADMITTED = Admission()


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
    initiator: str | None = None
    """Whose own circuit it is; None for the one of all."""


class CircuitBreakers:
    """The breakers of one provider, by endpoint and model: one that all principals share, and one of each principal.

    `failure_threshold` consecutive failures that come within `interval` seconds open a breaker for `timeout` seconds;
    then at most `max_requests` probes run at a time. The first success closes it, a failed probe opens it again.

    The shared one opens only where the failures are of at least two principals, because one alone might bring them
    about; that one's own opens all the same. Whose probe of the shared one has failed does not try again for a second
    `timeout`, so that others decide.

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
        self._timeout = settings.timeout
        self._max_probes = settings.max_requests
        self._clock = clock
        self._shared = _Breakers(settings, max_breakers, principals=2)
        self._own = _Breakers(settings, max_breakers, principals=1)
        self.trips: Counter[str] = Counter()
        """How often a breaker of each endpoint has opened."""
        self.rejections: Counter[str] = Counter()
        """How many requests each endpoint has refused."""
        self.opened: Callable[[str, str, float], None] | None = None
        """Hears of the endpoint and model whose shared breaker opens, and for how many seconds."""

    def admit(self, route: str, model: str, initiator: str) -> Admission:
        """Ask before each request that goes upstream. Raises `CircuitOpen`.

        What it returns goes into exactly one of `succeeded`, `failed` and `abandoned`.
        """
        if not self._own.by_key and not self._shared.by_key:
            return _ADMITTED
        model = model[:MAX_MODEL]
        now = self._clock()
        shared = self._shared.by_key.get((route, model, ""))
        own = self._own.by_key.get((route, model, initiator))
        for breaker in (shared, own):
            wait = 0.0 if breaker is None else breaker.wait(now, initiator, self._max_probes, self._timeout)
            if wait:
                self.rejections[route] += 1
                raise CircuitOpen(wait)
        return Admission(_FIRST if shared is None else shared.enter(), _FIRST if own is None else own.enter())

    def succeeded(self, route: str, model: str, initiator: str, admission: Admission) -> None:
        """The upstream answered, and not that it is overloaded."""
        if self._own.by_key or self._shared.by_key:
            model = model[:MAX_MODEL]
            self._shared.succeeded((route, model, ""), admission.shared)
            self._own.succeeded((route, model, initiator), admission.own)

    def failed(self, route: str, model: str, initiator: str, admission: Admission) -> None:
        """The upstream could not be reached, kept silent, or answered that it is overloaded."""
        if not self._enabled:
            return
        model, now = model[:MAX_MODEL], self._clock()
        shared = self._shared.by_key.get((route, model, ""))
        # A request from before the breaker last opened or closed tells nothing of the time since.
        if shared is not None and shared.generation != admission.shared:
            return
        opened = self._shared.failed((route, model, ""), admission.shared, initiator, now)
        if opened and self.opened is not None:
            self.opened(route, model, self._timeout)
        opened |= self._own.failed((route, model, initiator), admission.own, initiator, now)
        self.trips[route] += opened

    def hear(self, route: str, model: str, seconds: float) -> None:
        """Another process has found that this fails. Then it is left alone here, too, and probed by this one itself."""
        if self._enabled:
            self._shared.open((route, model[:MAX_MODEL], ""), self._clock() + min(seconds, self._timeout))

    def abandoned(self, route: str, model: str, initiator: str, admission: Admission) -> None:
        """The request ended before the upstream had shown how it is: a probe gives its place back."""
        model = model[:MAX_MODEL]
        self._shared.abandoned((route, model, ""), admission.shared)
        self._own.abandoned((route, model, initiator), admission.own)

    def __iter__(self) -> Iterator[Circuit]:
        """Those that remember something, newest failure first. Of principals' own those that are not closed: they stand
        in the place of a shared one that is.
        """
        now = self._clock()
        own = [one for one in self._own.circuits(now) if one.state is not CircuitState.CLOSED]
        told = {(one.route, one.model) for one in own}
        for circuit in self._shared.circuits(now):
            if circuit.state is not CircuitState.CLOSED or (circuit.route, circuit.model) not in told:
                yield circuit
        yield from own

    def __len__(self) -> int:
        return len(self._shared.by_key) + len(self._own.by_key)

    def count(self) -> Mapping[tuple[str, CircuitState], int]:
        """How many breakers each endpoint has in each state but `closed`."""
        return Counter((one.route, one.state) for one in self if one.state is not CircuitState.CLOSED)


_Key = tuple[str, str, str]
"""Endpoint, model, and whose: nobody's is everybody's."""


class _Breakers:
    """Breakers of one kind. Callers choose models, so that their number has a bound."""

    __slots__ = ("_interval", "_max", "_principals", "_threshold", "_timeout", "by_key")

    def __init__(self, settings: CircuitBreakerSettings, max_breakers: int, *, principals: int) -> None:
        self._threshold = settings.failure_threshold
        self._interval = settings.interval
        self._timeout = settings.timeout
        self._max = max_breakers
        self._principals = principals
        self.by_key: OrderedDict[_Key, _Breaker] = OrderedDict()  # least recently failed first

    def succeeded(self, key: _Key, generation: int) -> None:
        breaker = self.by_key.get(key)
        if breaker is None or breaker.generation != generation:
            return
        if breaker.state is CircuitState.HALF_OPEN:
            breaker.become(CircuitState.CLOSED)
        elif generation == _FIRST:
            del self.by_key[key]
        else:
            breaker.failures.clear()

    def failed(self, key: _Key, generation: int, initiator: str, now: float) -> bool:
        """Whether that opened the breaker."""
        breaker = self.by_key.get(key)
        if breaker is None and generation == _FIRST:
            breaker = self._add(key)
        if breaker is None or breaker.generation != generation:
            return False
        self.by_key.move_to_end(key)
        breaker.failures.append((now, initiator))
        is_probe = breaker.state is CircuitState.HALF_OPEN
        if not is_probe:
            in_time = now - breaker.failures[0][0] <= self._interval
            if len(breaker.failures) < self._threshold or not in_time:
                return False
            if self._principals > len({who for _, who in breaker.failures}):
                return False
        breaker.become(CircuitState.OPEN)
        breaker.until = now + self._timeout
        breaker.failed_by = initiator if is_probe and self._principals > 1 else None
        return True

    def open(self, key: _Key, until: float) -> None:
        """Open a breaker that is not open."""
        breaker = self.by_key.get(key) or self._add(key)
        if breaker.state is not CircuitState.OPEN:
            breaker.become(CircuitState.OPEN)
            breaker.until = until
            breaker.failed_by = None

    def abandoned(self, key: _Key, generation: int) -> None:
        breaker = self.by_key.get(key)
        if breaker is not None and breaker.generation == generation and breaker.state is CircuitState.HALF_OPEN:
            breaker.probes -= 1

    def circuits(self, now: float) -> Iterator[Circuit]:
        """Newest failure first."""
        for (route, model, initiator), breaker in reversed(self.by_key.items()):
            state, wait = breaker.state, max(0.0, breaker.until - now)
            if state is CircuitState.OPEN and not wait:
                state = CircuitState.HALF_OPEN
            elif state is not CircuitState.OPEN:
                wait = 0.0
            yield Circuit(route, model, state, len(breaker.failures), wait, initiator or None)

    def _add(self, key: _Key) -> _Breaker:
        if len(self.by_key) >= self._max:
            not_open = (key for key, one in self.by_key.items() if one.state is not CircuitState.OPEN)
            del self.by_key[next(not_open, next(iter(self.by_key)))]
        # At least as many failures as there must be principals, also where the threshold is lower.
        breaker = self.by_key[key] = _Breaker(max(self._threshold, self._principals))
        return breaker


class _Breaker:
    __slots__ = ("failed_by", "failures", "generation", "probes", "state", "until")

    def __init__(self, remembered: int) -> None:
        self.state = CircuitState.CLOSED
        self.generation = _FIRST
        self.failures: deque[tuple[float, str]] = deque(maxlen=remembered)
        """When, and whose."""
        self.until = -math.inf
        self.probes = 0
        self.failed_by: str | None = None
        """Whose probe failed last."""

    def wait(self, now: float, initiator: str, max_probes: int, timeout: float) -> float:
        """Seconds for which a request is refused; 0 where it may go."""
        if self.state is CircuitState.CLOSED:
            return 0.0
        if now < self.until:
            return self.until - now
        if initiator == self.failed_by and now < self.until + timeout:
            return self.until + timeout - now
        return 1.0 if self.state is CircuitState.HALF_OPEN and self.probes >= max_probes else 0.0

    def enter(self) -> int:
        """Count a request that may go."""
        if self.state is CircuitState.OPEN:
            self.become(CircuitState.HALF_OPEN)
        if self.state is CircuitState.HALF_OPEN:
            self.probes += 1
        return self.generation

    def become(self, state: CircuitState) -> None:
        """Begin anew: what was admitted before has no say any more."""
        self.state = state
        self.generation += 1
        self.probes = 0
        if state is CircuitState.CLOSED:
            self.failures.clear()
