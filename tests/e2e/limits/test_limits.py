"""Requests that are admitted, that wait and that are refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fastapi_aibridge import GatewayError, LimitSettings
from fastapi_aibridge.exchange.limits import Limits

from ...pool.clock import settled

pytestmark = pytest.mark.anyio


def limits(**values: Any) -> Limits:
    return Limits(LimitSettings(**values))


async def refusal(one: Limits, initiator: str = "alice") -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        await one.enter(initiator)
    return caught.value


async def test_process_is_full() -> None:
    """A request over the process's limit gets 503, whoever sends it, until another request has ended."""
    one = limits(max_concurrent=2, max_concurrent_per_principal=2)
    await one.enter("alice")
    await one.enter("bob")
    error = await refusal(one, "carol")
    assert (error.status, error.code, error.headers) == (503, "at_capacity", {"retry-after": "1"})
    one.leave("bob")
    await one.enter("carol")


async def test_nobody_gets_more_than_half() -> None:
    """Without a setting, one principal's requests leave half of the process's limit to the others."""
    one = limits(max_concurrent=6, max_wait=0)
    for _ in range(3):
        await one.enter("alice")
    error = await refusal(one)
    assert (error.status, error.code, error.headers) == (429, "too_many_concurrent_requests", {"retry-after": "1"})
    for _ in range(3):
        await one.enter("bob")


async def test_refusals_are_no_faster_than_turns() -> None:
    """A principal at its limit is not refused at once, so that an immediate retry gains nothing."""
    one = limits(max_concurrent=2, max_wait=0.05)
    await one.enter("alice")
    refusals = [asyncio.create_task(refusal(one)) for _ in range(3)]
    await settled()
    assert [task.done() for task in refusals] == [False, False, True]  # no more wait than the process takes requests
    assert one.inside == 1
    await one.enter("bob")
    assert {(await task).status for task in refusals} == {429}
    assert one._held_back == 0


async def test_turns_come_in_order() -> None:
    """Requests over a principal's limit wait, and are admitted in the order of their arrival."""
    one = limits(max_concurrent_per_principal=1)
    await one.enter("alice")
    served: list[int] = []

    async def request(number: int) -> None:
        await one.enter("alice")
        served.append(number)
        await settled(3)
        one.leave("alice")

    tasks = [asyncio.create_task(request(number)) for number in range(5)]
    await settled()
    assert (served, one.inside) == ([], 6)
    one.leave("alice")
    await asyncio.gather(*tasks)
    assert (served, one.inside) == ([0, 1, 2, 3, 4], 0)


async def test_waiting_has_an_end() -> None:
    """A request whose turn does not come in time is refused, and leaves nothing behind."""
    one = limits(max_concurrent_per_principal=1, max_wait=0.01)
    await one.enter("alice")
    assert (await refusal(one)).status == 429
    assert one.inside == 1
    one.leave("alice")
    await one.enter("alice")


async def test_who_gives_up_gives_the_place_on() -> None:
    """A request that is cancelled at the moment of its turn passes the turn on."""
    one = limits(max_concurrent_per_principal=1)
    await one.enter("alice")
    first, second = (asyncio.create_task(one.enter("alice")) for _ in range(2))
    await settled()
    one.leave("alice")
    first.cancel()
    await second
    assert first.cancelled()
    assert one.inside == 1
    one.leave("alice")
    assert not one._initiators


async def test_late_give_up_does_not_disturb_the_next() -> None:
    """A waiting request that is cancelled while the last other one leaves takes no place away."""
    one = limits(max_concurrent_per_principal=1)
    await one.enter("alice")
    waiting = asyncio.create_task(one.enter("alice"))
    await settled()
    waiting.cancel()
    one.leave("alice")
    await one.enter("alice")
    await asyncio.wait((waiting,))
    one.leave("alice")
    assert (one.inside, one._initiators) == (0, {})


async def test_limits_change_while_requests_run() -> None:
    """New limits apply to new requests, not to those that run."""
    one = limits(max_concurrent_per_principal=2)
    await one.enter("alice")
    await one.enter("alice")
    one.apply(LimitSettings(max_concurrent_per_principal=1, max_wait=0))
    await refusal(one)
    one.leave("alice")
    await refusal(one)
    one.leave("alice")
    await one.enter("alice")


@hypothesis_settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_order(data: st.DataObject) -> None:
    """In any order of arrivals, departures and cancellations the limits hold, and no place is lost."""

    async def run() -> None:
        one = limits(max_concurrent=8, max_concurrent_per_principal=2, max_wait=0.01)
        running: list[str] = []
        tasks: list[asyncio.Task[None]] = []

        async def request(who: str, leave: asyncio.Event) -> None:
            try:
                await one.enter(who)
            except GatewayError:
                return
            running.append(who)
            try:
                await leave.wait()
            finally:
                running.remove(who)
                one.leave(who)

        events: list[asyncio.Event] = []
        for _ in range(data.draw(st.integers(1, 40))):
            action = data.draw(st.sampled_from(["come", "come", "leave", "cancel", "turn"]))
            if action == "come":
                events.append(asyncio.Event())
                tasks.append(asyncio.create_task(request(data.draw(st.sampled_from("ab")), events[-1])))
            elif tasks and action != "turn":
                number = data.draw(st.integers(0, len(tasks) - 1))
                events[number].set() if action == "leave" else tasks[number].cancel()
            else:
                await settled(data.draw(st.integers(0, 3)))
            assert max(running.count("a"), running.count("b")) <= 2
            assert one.inside <= 8
        for event in events:
            event.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (running, one.inside, one._initiators) == ([], 0, {})

    asyncio.run(run())
