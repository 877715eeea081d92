"""The limits that one process counts by itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fastapi_aibridge import GatewayError, LimitSettings, Principal
from fastapi_aibridge.cluster import process_limits
from fastapi_aibridge.cluster.rate_limits import RateLimits, Ticket

from ..upstream.clock import MovableClock

pytestmark = pytest.mark.anyio


class OpenAI:
    name = type = "openai"


class Anthropic:
    name = type = "anthropic"


def rates(clock: MovableClock | None = None, **values: Any) -> RateLimits:
    return RateLimits(LimitSettings(**values), clock=clock or MovableClock())


async def begin(
    one: RateLimits, initiator: str = "alice", *, model: str = "gpt-5", size: int = 0, **who: Any
) -> Ticket:
    ticket = one.begin(Principal(initiator, **who), OpenAI(), model, size)
    assert ticket is not None
    await ticket.admitted()
    return ticket


async def refusal(one: RateLimits, initiator: str = "alice", **request: Any) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        await begin(one, initiator, **request)
    assert caught.value.status == 429
    return caught.value


async def test_requests_in_a_window() -> None:
    """The window allows the given number of requests, and the refusal says when the next is possible."""
    clock = MovableClock()
    one = rates(clock, requests=3, window=60)
    for _ in range(3):
        (await begin(one)).release()
    error = await refusal(one)
    assert (error.code, error.headers["retry-after"]) == ("rate_limit_exceeded", "61")
    await begin(one, "bob")
    clock.now += 60
    await refusal(one)
    clock.now += 1
    await begin(one)


async def test_idle_initiators_are_forgotten() -> None:
    """Initiators whose windows are over are forgotten, so that memory stays bounded."""
    clock = MovableClock()
    one = rates(clock, requests=3, window=60, rules=[{"scope": "default", "concurrent": 5}])
    for number in range(1000):
        (await begin(one, f"user-{number}")).release()
    clock.now += 121
    await begin(one)
    assert len(one._process._windows) == len(one._process._running) == 1


async def test_windows_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of windows is bounded, even within a long one: the oldest are dropped."""
    monkeypatch.setattr(process_limits, "MAX_WINDOWS", 10)
    one = rates(requests=3, window=86400)
    for number in range(50):
        await begin(one, f"user-{number}")
    assert len(one._process._windows) == 10


@hypothesis_settings(deadline=None)
@given(allowed=st.integers(1, 5), gaps=st.lists(st.floats(0, 30), max_size=60))
async def test_window_slides(allowed: int, gaps: list[float]) -> None:
    """No interval as long as the window has more than twice the limit, and a caller that waits as told is admitted."""
    clock = MovableClock()
    one = rates(clock, requests=allowed, window=10)
    admitted = []
    for gap in gaps:
        clock.now += gap
        try:
            await begin(one)
        except GatewayError as error:
            clock.now += float(error.headers["retry-after"])
            await begin(one)
        admitted.append(clock.now)
    for start in admitted:
        assert sum(start <= at < start + 10 for at in admitted) <= 2 * allowed


async def test_tokens_are_settled() -> None:
    """Tokens reserved by the body's size are replaced by the used ones; a request passes while any are left."""
    one = rates(tokens=1000)
    large = await begin(one, size=2_000_000)
    assert large.headers["x-ratelimit-remaining-tokens"] == "875"
    large.count(100)
    large.count(50)
    large.release()
    last = await begin(one, size=4)
    assert last.headers["x-ratelimit-remaining-tokens"] == "849"
    last.count(5000)
    last.release()
    assert (await refusal(one)).message == "your limit is 1000 tokens in 60 s"


async def test_reserved_tokens_come_back() -> None:
    """The reserved tokens of a request that used none are returned."""
    one = rates(tokens=80)
    for _ in range(3):
        (await begin(one, size=400)).release()
    assert (await begin(one)).headers["x-ratelimit-remaining-tokens"] == "80"


async def test_concurrent_requests_wait_for_their_turn() -> None:
    """Concurrent requests wait for a while and are then refused without a trace."""
    one = rates(rules=[{"scope": "group", "id": "guests", "concurrent": 1}], max_wait=0.2)
    first = await begin(one, groups=("guests",))
    error = await refusal(one, "bob", groups=("guests",))
    assert error.code == "too_many_concurrent_requests"
    assert error.message == "the limit of the group 'guests' is 1 concurrent requests"
    first.release()
    first.release()
    second = await begin(one, "bob", groups=("guests",))
    second.release()
    assert dict(one._process.running()) == {}


@pytest.mark.parametrize(
    ("rule", "others"),
    [
        ({"scope": "initiator", "id": "alice"}, {"initiator": "bob"}),
        ({"scope": "default"}, {"initiator": "bob"}),
        ({"scope": "group", "id": "staff"}, {"groups": ("guests",)}),
        ({"scope": "group", "id": "st*"}, {"groups": ("student",)}),
        ({"scope": "model", "id": "gpt-5*"}, {"model": "gpt-4"}),
        ({"scope": "default", "model": "gpt-5*"}, {"model": "gpt-4"}),
        ({"scope": "group", "id": "staff", "model": "gpt-5*"}, {"model": "gpt-4", "groups": ("staff",)}),
    ],
)
async def test_whom_a_rule_limits(rule: dict[str, str], others: dict[str, Any]) -> None:
    """A caller whose limit is used up is refused, and the others are not."""
    one = rates(rules=[{**rule, "requests": 1}, {"scope": "default", "requests": 1000}])
    await begin(one, groups=("staff",))
    await refusal(one, groups=("staff",))
    request = {"initiator": "alice", **others}
    await begin(one, request.pop("initiator"), **request)


async def test_all_of_a_group_or_provider_or_model_share_its_limit() -> None:
    for rule in (
        {"scope": "group", "id": "staff"},
        {"scope": "provider", "id": "openai"},
        {"scope": "provider", "id": "*"},
        {"scope": "model", "id": "gpt-*"},
    ):
        one = rates(rules=[{**rule, "requests": 2}])
        await begin(one, "alice", groups=("staff",))
        await begin(one, "bob", groups=("staff",), model="gpt-4")
        await refusal(one, "carol", groups=("staff",))


async def test_own_rule_takes_the_place_of_the_default() -> None:
    """A rule replaces the default in the members that it sets; the default holds for the others."""
    one = rates(requests=1, tokens=10, rules=[{"scope": "initiator", "id": "alice", "requests": 3}])
    await begin(one, "bob")
    await refusal(one, "bob")
    tickets = [await begin(one) for _ in range(3)]
    await refusal(one)
    one.apply(LimitSettings(tokens=10, rules=({"scope": "initiator", "id": "alice", "requests": 9},)))
    tickets[0].count(10)
    assert (await refusal(one)).message == "your limit is 10 tokens in 60 s"


async def test_counts_survive_a_change_of_the_number() -> None:
    """A reload with another number keeps the counts."""
    one = rates(requests=2)
    await begin(one)
    await begin(one)
    one.apply(LimitSettings(requests=3))
    await begin(one)
    await refusal(one)


async def test_refused_request_counts_nowhere() -> None:
    """A request that one rule refuses is not counted by the others."""
    one = rates(rules=[{"scope": "group", "id": "staff", "requests": 5}, {"scope": "default", "requests": 1}])
    await begin(one, groups=("staff",))
    await refusal(one, groups=("staff",))
    bob = await begin(one, "bob", groups=("staff",))
    assert bob.headers["x-ratelimit-remaining-requests"] == "0"
    assert bob.headers["x-ratelimit-limit-requests"] == "1"
    for number in range(3):
        await begin(one, f"user-{number}", groups=("staff",))
    await refusal(one, "last", groups=("staff",))


async def test_refusals_are_remembered_for_a_moment() -> None:
    """For one second, a refused caller is refused before the body is read; later tokens may have been returned."""
    clock = MovableClock()
    one = rates(clock, requests=1)
    one.check(Principal("alice"), OpenAI())
    await begin(one)
    await refusal(one)
    with pytest.raises(GatewayError) as caught:
        one.check(Principal("alice"), OpenAI())
    assert caught.value.headers == {
        "retry-after": "61",
        "x-ratelimit-limit-requests": "1",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1m1s",
    }
    one.check(Principal("bob"), OpenAI())
    clock.now += 1.1
    one.check(Principal("alice"), OpenAI())


async def test_headers_have_the_vendors_form() -> None:
    one = rates(requests=3, tokens=1000, window=90)
    ticket = one.begin(Principal("alice"), Anthropic(), "claude", 40)
    assert ticket is not None
    await ticket.admitted()
    headers = ticket.headers
    assert headers["anthropic-ratelimit-requests-limit"] == "3"
    assert headers["anthropic-ratelimit-requests-remaining"] == "2"
    assert headers["anthropic-ratelimit-tokens-remaining"] == "990"
    assert headers["anthropic-ratelimit-tokens-reset"].endswith("Z")
    assert (await begin(one)).headers["x-ratelimit-reset-requests"] == "3m0s"


async def test_without_rules_nothing_is_asked() -> None:
    assert not rates().is_on
    assert rates(rules=[{"scope": "model", "id": "gpt-5", "requests": 1}]).is_on


async def test_erase() -> None:
    """The counts of one initiator are erased, and those of others stay."""
    one = rates(requests=1, rules=[{"scope": "group", "id": "staff", "requests": 3}])
    await begin(one, groups=("staff",))
    await begin(one, "bob", groups=("staff",))
    await one.erase("alice")
    await begin(one, groups=("staff",))
    await refusal(one, "bob", groups=("staff",))
    await refusal(one, "carol", groups=("staff",))
