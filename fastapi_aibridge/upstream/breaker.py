"""Circuit breakers: an endpoint and model that keeps failing gets no requests for a while.

There is no I/O and there are no timers: callers report each attempt and its outcome, and the clock is read then.
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
from ..principal import MAX_MODEL
from ..settings import CircuitBreakerSettings

MAX_BREAKERS = 1000
"""The most breakers of one provider, counted apart for shared ones and for those of single principals. Clients choose
the models, so that without a limit they could fill the memory.
"""

_FIRST = 0
"""Generation of a breaker that has never been open."""


class CircuitState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class CircuitOpen(GatewayError):
    """The error of a request that a circuit breaker refuses."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            503,
            "circuit_open",
            "the provider has been failing for this endpoint and model, and is left alone for a while",
            headers={"retry-after": str(max(1, math.ceil(seconds)))},
        )


class Admission(NamedTuple):
    """The generations of the shared and the own breaker that admitted a request; its outcome counts for no others."""

    shared: int = _FIRST
    own: int = _FIRST


_ADMITTED = Admission()


@dataclass(frozen=True, slots=True)
class Circuit:
    """A snapshot of one breaker."""

    route: str
    model: str
    state: CircuitState
    failures: int
    """Consecutive failures, as many as are remembered."""
    retry_in: float
    """Seconds until the next probe may start; 0 where requests may start now."""
    initiator: str | None = None
    """The initiator whose own breaker it is; None for the shared one."""


class CircuitBreakers:
    """The breakers of one provider, by endpoint and model: one that all principals share, and one for each principal.

    `failure_threshold` consecutive failures within `interval` seconds open a breaker for `timeout` seconds; then at
    most `max_requests` probes run at a time. The first success closes it, a failed probe opens it again.

    The shared breaker opens only where the failures are of at least two principals, because a single one might provoke
    them; that one's own breaker opens regardless. A principal whose probe of the shared breaker failed must wait for a
    second `timeout`, so that others probe first.

    Only failing endpoints and models have breakers: a healthy provider costs a look into empty dictionaries.
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
        """Number of times that a breaker has opened, by endpoint."""
        self.rejections: Counter[str] = Counter()
        """Number of requests that were refused, by endpoint."""
        self.opened: Callable[[str, str, float], None] | None = None
        """Called with endpoint, model and seconds when a shared breaker opens."""

    def admit(self, route: str, model: str, initiator: str) -> Admission:
        """Ask before each upstream request. Raises `CircuitOpen`.

        The result must be passed to exactly one of `succeeded`, `failed` and `abandoned`.
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
        """Report a response that does not say that the upstream is overloaded."""
        if self._own.by_key or self._shared.by_key:
            model = model[:MAX_MODEL]
            self._shared.succeeded((route, model, ""), admission.shared)
            self._own.succeeded((route, model, initiator), admission.own)

    def failed(self, route: str, model: str, initiator: str, admission: Admission) -> None:
        """Report that the upstream could not be reached, stayed silent, or responded that it is overloaded."""
        if not self._enabled:
            return
        model, now = model[:MAX_MODEL], self._clock()
        shared = self._shared.by_key.get((route, model, ""))
        # A request admitted before the breaker last opened or closed says nothing of the time since.
        if shared is not None and shared.generation != admission.shared:
            return
        opened = self._shared.failed((route, model, ""), admission.shared, initiator, now)
        if opened and self.opened is not None:
            self.opened(route, model, self._timeout)
        opened |= self._own.failed((route, model, initiator), admission.own, initiator, now)
        self.trips[route] += opened

    def hear(self, route: str, model: str, seconds: float) -> None:
        """Open a shared breaker because another process has opened its own; this process probes by itself."""
        if self._enabled:
            self._shared.open((route, model[:MAX_MODEL], ""), self._clock() + min(seconds, self._timeout))

    def abandoned(self, route: str, model: str, initiator: str, admission: Admission) -> None:
        """Report that the request ended without a verdict on the upstream: a probe frees its place."""
        model = model[:MAX_MODEL]
        self._shared.abandoned((route, model, ""), admission.shared)
        self._own.abandoned((route, model, initiator), admission.own)

    def __iter__(self) -> Iterator[Circuit]:
        """Yield the breakers that remember failures: the shared ones, then the principals' own that are not closed.

        Each kind comes with the newest failure first. An own breaker replaces a closed shared one of the same endpoint
        and model.
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
        """Count the breakers that are not closed, by endpoint and state."""
        return Counter((one.route, one.state) for one in self if one.state is not CircuitState.CLOSED)


_Key = tuple[str, str, str]
"""Endpoint, model and initiator, which is empty for the shared breaker."""


class _Breakers:
    """Breakers of one kind, shared or own. Callers choose the models, so their number is limited."""

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
        """Count a failure; return whether it opened the breaker."""
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
        """Open a breaker, unless it is open already."""
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
        """Yield snapshots of the breakers, newest failure first."""
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
        # Remember enough failures for all principals that it takes, also where the threshold is lower.
        breaker = self.by_key[key] = _Breaker(max(self._threshold, self._principals))
        return breaker


class _Breaker:
    __slots__ = ("failed_by", "failures", "generation", "probes", "state", "until")

    def __init__(self, remembered: int) -> None:
        self.state = CircuitState.CLOSED
        self.generation = _FIRST
        self.failures: deque[tuple[float, str]] = deque(maxlen=remembered)
        """Time and initiator of each failure."""
        self.until = -math.inf
        self.probes = 0
        self.failed_by: str | None = None
        """Initiator whose probe failed last."""

    def wait(self, now: float, initiator: str, max_probes: int, timeout: float) -> float:
        """Return the seconds for which a request is refused; 0 where it may start."""
        if self.state is CircuitState.CLOSED:
            return 0.0
        if now < self.until:
            return self.until - now
        if initiator == self.failed_by and now < self.until + timeout:
            return self.until + timeout - now
        return 1.0 if self.state is CircuitState.HALF_OPEN and self.probes >= max_probes else 0.0

    def enter(self) -> int:
        """Admit a request; return the generation that it belongs to."""
        if self.state is CircuitState.OPEN:
            self.become(CircuitState.HALF_OPEN)
        if self.state is CircuitState.HALF_OPEN:
            self.probes += 1
        return self.generation

    def become(self, state: CircuitState) -> None:
        """Enter a state, and with it a new generation: outcomes of earlier requests no longer count."""
        self.state = state
        self.generation += 1
        self.probes = 0
        if state is CircuitState.CLOSED:
            self.failures.clear()
