"""A state machine test of the breakers: any interleaving of requests, outcomes and time, compared with a model.

Each request has another principal; breakers of a single principal are in `test_breaker`.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fastapi_aibridge.settings import CircuitBreakerSettings
from fastapi_aibridge.upstream.breaker import Admission, CircuitBreakers, CircuitOpen, CircuitState

from .clock import MovableClock

ROUTE = "/v1/messages"
INTERVAL, TIMEOUT = 10.0, 30.0
models = st.sampled_from(["a", "b"])


@dataclass
class Request:
    model: str
    initiator: str
    admission: Admission
    period: int


@dataclass
class Seen:
    """The test's own model of the breaker of one model name."""

    state: CircuitState = CircuitState.CLOSED
    period: int = 0
    opened_at: float = 0.0
    failures: tuple[float, ...] = ()

    def become(self, state: CircuitState) -> None:
        self.state, self.period, self.failures = state, self.period + 1, ()


class BreakerMachine(RuleBasedStateMachine):
    @initialize(threshold=st.integers(2, 4), probes=st.integers(1, 3))
    def open(self, threshold: int, probes: int) -> None:
        self.clock = MovableClock()
        self.threshold, self.probes = threshold, probes
        limits = CircuitBreakerSettings(
            failure_threshold=threshold, interval=INTERVAL, timeout=TIMEOUT, max_requests=probes
        )
        self.breakers = CircuitBreakers(limits, clock=self.clock)
        self.running: list[Request] = []
        self.asked = 0
        self.seen = {"a": Seen(), "b": Seen()}

    def probing(self, model: str) -> int:
        return sum(one.model == model and one.period == self.seen[model].period for one in self.running)

    @rule(model=models)
    def ask(self, model: str) -> None:
        seen = self.seen[model]
        if seen.state is CircuitState.OPEN and self.clock.now >= seen.opened_at + TIMEOUT:
            seen.become(CircuitState.HALF_OPEN)
        refused = seen.state is CircuitState.OPEN or (
            seen.state is CircuitState.HALF_OPEN and self.probing(model) >= self.probes
        )
        try:
            self.asked += 1
            initiator = f"user-{self.asked}"
            admission = self.breakers.admit(ROUTE, model, initiator)
        except CircuitOpen as error:
            assert refused
            wait = int(error.headers["retry-after"])
            assert wait >= 1
            if seen.state is CircuitState.OPEN:
                assert 0 <= self.clock.now + wait - (seen.opened_at + TIMEOUT) < 1
        else:
            assert not refused
            self.running.append(Request(model, initiator, admission, seen.period))

    def finish(self, pick: int) -> tuple[Request, Seen, bool]:
        request = self.running.pop(pick % len(self.running))
        seen = self.seen[request.model]
        return request, seen, request.period == seen.period

    @precondition(lambda self: self.running)
    @rule(pick=st.integers(0, 99))
    def succeed(self, pick: int) -> None:
        request, seen, counts = self.finish(pick)
        self.breakers.succeeded(ROUTE, request.model, request.initiator, request.admission)
        if counts and seen.state is CircuitState.HALF_OPEN:
            seen.become(CircuitState.CLOSED)
        elif counts:
            seen.failures = ()

    @precondition(lambda self: self.running)
    @rule(pick=st.integers(0, 99))
    def fail(self, pick: int) -> None:
        request, seen, counts = self.finish(pick)
        self.breakers.failed(ROUTE, request.model, request.initiator, request.admission)
        if not counts:
            return
        seen.failures += (self.clock.now,)
        recent = seen.failures[-self.threshold :]
        if seen.state is CircuitState.HALF_OPEN or (
            len(recent) == self.threshold and recent[-1] - recent[0] <= INTERVAL
        ):
            seen.become(CircuitState.OPEN)
            seen.opened_at = self.clock.now

    @precondition(lambda self: self.running)
    @rule(pick=st.integers(0, 99))
    def abandon(self, pick: int) -> None:
        request, _, _ = self.finish(pick)
        self.breakers.abandoned(ROUTE, request.model, request.initiator, request.admission)

    @rule(seconds=st.sampled_from([0.5, 3.0, 9.5, 29.5, 30.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def tells_the_state(self) -> None:
        if not hasattr(self, "breakers"):
            return
        told = {one.model: one for one in self.breakers}
        for model, seen in self.seen.items():
            state = told[model].state if model in told else CircuitState.CLOSED
            due = seen.state is CircuitState.OPEN and self.clock.now >= seen.opened_at + TIMEOUT
            assert state is (CircuitState.HALF_OPEN if due else seen.state)


TestBreakerMachine = BreakerMachine.TestCase
TestBreakerMachine.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
