"""Each fault, in each format, streamed and not: a well-formed response in time, the right record, nothing left over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from fastapi_aibridge import Status
from fastapi_aibridge.recorder import Ending
from tests.e2e.gateway.bodies import CHAT, WIRES, Wire
from tests.e2e.gateway.client import Answer

from .faults import CASES, NO_MESSAGES, OVERLOADED, Case, Outcome
from .harness import GatewayHarness, harness
from .leftovers import held, nothing_left_over
from .proxy import Fault, no_fault

pytestmark = pytest.mark.anyio

each_wire = pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
streamed_or_not = pytest.mark.parametrize("stream", [False, True], ids=["blocking", "streamed"])


@pytest.fixture(scope="module", name="home")
async def _home() -> AsyncIterator[GatewayHarness]:
    """One gateway for all cases, so that leftovers of one fault affect the next case."""
    async with harness() as one:
        for wire in WIRES:
            await one.ask(wire, stream=True)
        await one.proxy.hang_up()
        await asyncio.sleep(0.05)
        yield one


@each_wire
@streamed_or_not
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_fault(home: GatewayHarness, case: Case, wire: Wire, *, stream: bool) -> None:
    """Every fault ends in time with a response or a readable error, the right record and nothing left over."""
    before = held(home.aibridge)
    home.proxy.choose = lambda: no_fault if case.greets else case.fault
    home.proxy.greet = case.fault if case.greets else None
    answer = await home.ask(wire, stream=stream)
    ending = await home.ending(answer)
    judge(case, wire, answer, ending, stream=stream)
    await home.proxy.hang_up()
    await nothing_left_over(before, home.aibridge)


def judge(case: Case, wire: Wire, answer: Answer, ending: Ending, *, stream: bool) -> None:
    assert answer.whole, "the connection was cut"
    outcome, events = case.outcome, b"".join(wire.events)
    if outcome is Outcome.WHOLE:
        assert (answer.status, answer.body) == (200, events if stream else wire.blocking)
        assert ending.status is Status.COMPLETED
        return
    assert ending.status is Status.FAILED
    assert ending.error
    if outcome is Outcome.AS_IT_CAME:
        assert (answer.status, answer.body) == (case.status, OVERLOADED)
        assert ending.upstream_status == case.status
    elif outcome is Outcome.NO_MESSAGE and not (stream and case.name in CALLED_STREAMS):
        assert (answer.status, answer.body) == (200, NO_MESSAGES.get(case.name, wire.blocking))
        assert ending.upstream_status == 200
    elif stream and outcome in (Outcome.BROKEN_STREAM, Outcome.SILENT_STREAM):
        assert answer.status == 200
        whole = b"".join(answer.body.partition(b"\n\n")[:2])
        assert whole == wire.events[0]
        # An empty line counts as a whole event, and may have been relayed before the break.
        assert wire.is_error_event(answer.body.removeprefix(whole).removeprefix(b"\r\n"))
    else:
        timeout = outcome in (Outcome.TIMEOUT, Outcome.SILENT_STREAM)
        assert answer.status == (504 if timeout else 502)
        assert wire.is_error(answer.body)
        assert answer.header("content-type") == "application/json"


CALLED_STREAMS = {"garbage for a body", "bad gzip", "cut gzip"}
"""The `NO_MESSAGE` faults that declare an event stream if one was requested."""

BEFORE_THE_BODY = [
    case
    for case in CASES
    if case.name in ("reset before the head", "closed in the head", "closed after the head", "garbage", "answers 529")
]


@pytest.mark.parametrize("case", BEFORE_THE_BODY, ids=lambda case: case.name)
async def test_fault_that_passes(case: Case) -> None:
    """A single fault before the first relayed byte is hidden from the caller by a retry."""
    faults: list[Fault] = [case.fault]
    async with harness(max_retries=1) as home:
        home.proxy.choose = lambda: faults.pop() if faults else no_fault
        answer = await home.ask(CHAT, stream=True)
        assert (answer.status, answer.body) == (200, b"".join(CHAT.events))
        assert answer.header("x-aibridge-attempts") == "2"
        assert (await home.ending(answer)).status is Status.COMPLETED
