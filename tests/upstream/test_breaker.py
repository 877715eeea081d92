"""Circuit breakers, one rule in each test."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from fastapi_aibridge.settings import CircuitBreakerSettings
from fastapi_aibridge.upstream.breaker import CircuitBreakers, CircuitOpen, CircuitState

from .clock import MovableClock

CHAT, MODEL = "/v1/chat/completions", "gpt-5"


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def breakers(clock: MovableClock) -> CircuitBreakers:
    return CircuitBreakers(CircuitBreakerSettings(), clock=clock)


def fail(
    breakers: CircuitBreakers,
    times: int = 1,
    route: str = CHAT,
    model: str = MODEL,
    who: Sequence[str] = ("alice", "bob"),
) -> None:
    for number in range(times):
        initiator = who[number % len(who)]
        breakers.failed(route, model, initiator, breakers.admit(route, model, initiator))


def succeed(breakers: CircuitBreakers, who: str = "carol") -> None:
    breakers.succeeded(CHAT, MODEL, who, breakers.admit(CHAT, MODEL, who))


def refused(breakers: CircuitBreakers, route: str = CHAT, model: str = MODEL, who: str = "carol") -> CircuitOpen:
    with pytest.raises(CircuitOpen) as caught:
        breakers.admit(route, model, who)
    return caught.value


def only_state(breakers: CircuitBreakers) -> CircuitState:
    [circuit] = breakers
    return circuit.state


def test_healthy_provider_has_no_breakers(breakers: CircuitBreakers) -> None:
    """Successes create no breakers, however many model names clients invent."""
    for number in range(50):
        breakers.succeeded(CHAT, f"model-{number}", "alice", breakers.admit(CHAT, f"model-{number}", "alice"))
    assert len(breakers) == 0


def test_opens_at_the_threshold(breakers: CircuitBreakers) -> None:
    """The fifth failure in a row opens the breaker, and the next request is told to retry after 30 s."""
    fail(breakers, 4)
    assert only_state(breakers) is CircuitState.CLOSED
    fail(breakers)
    error = refused(breakers)
    assert (error.status, error.code, error.headers) == (503, "circuit_open", {"retry-after": "30"})
    assert breakers.trips == {CHAT: 1}
    assert breakers.rejections == {CHAT: 1}


def test_success_starts_the_count_anew(breakers: CircuitBreakers) -> None:
    """A success resets the count of failures."""
    fail(breakers, 4)
    succeed(breakers)
    fail(breakers, 4)
    assert only_state(breakers) is CircuitState.CLOSED


def test_slow_failures_do_not_open(breakers: CircuitBreakers, clock: MovableClock) -> None:
    """Failures spread over more than the interval do not open the breaker."""
    for _ in range(20):
        fail(breakers)
        clock.now += 2.6
    assert only_state(breakers) is CircuitState.CLOSED


def test_interval_slides(breakers: CircuitBreakers, clock: MovableClock) -> None:
    """The interval slides: five failures within any ten seconds open the breaker."""
    fail(breakers)
    clock.now += 9
    fail(breakers, 3)
    clock.now += 2
    fail(breakers)
    assert only_state(breakers) is CircuitState.CLOSED
    fail(breakers)
    assert only_state(breakers) is CircuitState.OPEN


def test_endpoints_and_models_are_apart(breakers: CircuitBreakers) -> None:
    """Breakers of models and of endpoints are independent."""
    fail(breakers, 5)
    breakers.admit(CHAT, "gpt-5-mini", "alice")
    breakers.admit("/v1/responses", MODEL, "alice")


def test_retry_after_counts_down(breakers: CircuitBreakers, clock: MovableClock) -> None:
    """`retry-after` is the remaining time, rounded up to whole seconds and never 0."""
    fail(breakers, 5)
    clock.now += 10.5
    assert refused(breakers).headers["retry-after"] == "20"
    clock.now += 19.4
    assert refused(breakers).headers["retry-after"] == "1"


def test_three_probes_at_a_time(breakers: CircuitBreakers, clock: MovableClock) -> None:
    """After the timeout three probes are admitted, and a fourth request is told to retry after a second."""
    fail(breakers, 5)
    clock.now += 30
    assert only_state(breakers) is CircuitState.HALF_OPEN
    for _ in range(3):
        breakers.admit(CHAT, MODEL, "carol")
    assert refused(breakers).headers["retry-after"] == "1"


def test_successful_probe_closes(breakers: CircuitBreakers, clock: MovableClock) -> None:
    """One successful probe closes the breaker and resets the count."""
    fail(breakers, 5)
    clock.now += 30
    succeed(breakers)
    fail(breakers, 4)
    assert only_state(breakers) is CircuitState.CLOSED


def test_failed_probe_opens_again(breakers: CircuitBreakers, clock: MovableClock) -> None:
    """One failed probe opens the breaker again for the whole timeout."""
    fail(breakers, 5)
    clock.now += 30
    fail(breakers)
    clock.now += 29
    refused(breakers)
    clock.now += 1
    breakers.admit(CHAT, MODEL, "carol")
    assert breakers.trips == {CHAT: 2}


def test_abandoned_probe_gives_its_place_back(breakers: CircuitBreakers, clock: MovableClock) -> None:
    """A probe whose client leaves frees its place."""
    fail(breakers, 5)
    clock.now += 30
    probes = [breakers.admit(CHAT, MODEL, "carol") for _ in range(3)]
    breakers.abandoned(CHAT, MODEL, "carol", probes[0])
    breakers.admit(CHAT, MODEL, "carol")
    refused(breakers)


def test_late_failures_do_not_count(breakers: CircuitBreakers, clock: MovableClock) -> None:
    """Failures of requests that began before the outage do not count after it."""
    early = [breakers.admit(CHAT, MODEL, "carol") for _ in range(10)]
    fail(breakers, 5)
    clock.now += 30
    succeed(breakers)
    for generation in early:
        breakers.failed(CHAT, MODEL, "carol", generation)
    breakers.admit(CHAT, MODEL, "carol")
    assert only_state(breakers) is CircuitState.CLOSED


def test_late_success_does_not_close(breakers: CircuitBreakers) -> None:
    """A late success of a request that began before the outage does not close the breaker."""
    early = breakers.admit(CHAT, MODEL, "carol")
    fail(breakers, 5)
    breakers.succeeded(CHAT, MODEL, "carol", early)
    refused(breakers)


def test_switched_off(clock: MovableClock) -> None:
    """Disabled breakers never open."""
    breakers = CircuitBreakers(CircuitBreakerSettings(enabled=False), clock=clock)
    fail(breakers, 100)
    assert len(breakers) == 0


def test_number_is_bounded(clock: MovableClock) -> None:
    """The number of breakers is bounded: a new one displaces the oldest that is not open, or else the oldest."""
    breakers = CircuitBreakers(CircuitBreakerSettings(), max_breakers=10, clock=clock)
    fail(breakers, 5)
    for number in range(100):
        fail(breakers, model=f"made-up-{number}")
    assert len(breakers) <= 20
    refused(breakers)
    for number in range(100):
        fail(breakers, 5, model=f"down-{number}")
    assert len(breakers) <= 20


def test_counts_by_endpoint_and_state(breakers: CircuitBreakers, clock: MovableClock) -> None:
    """The counts for metrics leave out the models, because clients choose them."""
    fail(breakers, 5, model="a")
    clock.now += 30
    fail(breakers, 5, model="b")
    fail(breakers, 5, model="c")
    fail(breakers, 1, model="d")
    assert breakers.count() == {(CHAT, CircuitState.HALF_OPEN): 1, (CHAT, CircuitState.OPEN): 2}


def test_one_principal_alone_opens_only_its_own(breakers: CircuitBreakers, clock: MovableClock) -> None:
    """Failures of a single principal open the breaker for it alone, and its later probe can close it."""
    fail(breakers, 5, who=["mallory"])
    assert refused(breakers, who="mallory").headers == {"retry-after": "30"}
    succeed(breakers, who="alice")
    assert [(one.initiator, one.state) for one in breakers] == [("mallory", CircuitState.OPEN)]
    clock.now += 30
    succeed(breakers, who="mallory")
    breakers.admit(CHAT, MODEL, "mallory")


def test_the_failures_of_two_open_for_all(breakers: CircuitBreakers) -> None:
    """The breaker opens for all if two principals have failed, even if one has most of the failures."""
    fail(breakers, 4, who=["mallory"])
    breakers.admit(CHAT, MODEL, "carol")
    fail(breakers, 1, who=["bob"])
    refused(breakers, who="carol")


def test_one_principals_probes_do_not_keep_it_open(breakers: CircuitBreakers, clock: MovableClock) -> None:
    """A principal whose probe failed waits twice as long, so that another's probe can close the breaker."""
    fail(breakers, 5)
    clock.now += 30
    fail(breakers, 1, who=["mallory"])
    clock.now += 30
    assert refused(breakers, who="mallory").headers == {"retry-after": "30"}
    succeed(breakers, who="alice")
    breakers.admit(CHAT, MODEL, "mallory")


def test_nobody_else_need_be_there_to_close_it(breakers: CircuitBreakers, clock: MovableClock) -> None:
    """A principal whose probe failed may probe again if no other does."""
    fail(breakers, 5)
    clock.now += 30
    fail(breakers, 1, who=["mallory"])
    clock.now += 60
    succeed(breakers, who="mallory")
    breakers.admit(CHAT, MODEL, "carol")


def test_names_of_models_are_cut(breakers: CircuitBreakers) -> None:
    """The length of a stored model name is bounded."""
    fail(breakers, 4, model="m" * 10_000_000)
    assert {len(one.model) for one in breakers} == {256}
    fail(breakers, 1, model="m" * 10_000_000)
    refused(breakers, model="m" * 10_000_000)
