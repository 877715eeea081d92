"""The cost of responses in the background whose outcome the client hides: it is charged as far as it was seen."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fastapi_aibridge import InterceptionRecord, Status
from tests.e2e.gateway.gateway import Gateway, gateway
from tests.e2e.gateway.test_background import RESPONSES, ask, begin, delete, ended, response
from tests.waiting import turns, until

pytestmark = pytest.mark.anyio

PRICES = {"openai": {"gpt-5": {"input": 0, "output": 10}}}
WORDS = "word " * 400
"""A text of 2,000 characters."""


def event(number: int, kind: str, **members: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (
        kind.encode(),
        json.dumps({"type": kind, "sequence_number": number, **members}).encode(),
    )


def delta(number: int) -> bytes:
    return event(number, "response.output_text.delta", item_id="i1", delta=WORDS)


async def read_and_leave(gate: Gateway, method: str, path: str, body: bytes, *events: bytes) -> None:
    """Read these events of a stream and disconnect before its end."""
    async with gate.connected() as client:
        await client.send(method, path, body)
        call = await gate.upstream.call()
        await call.stream(*events)
        await client.head()
        read = b""
        while read.count(b"output_text") < 2 * len([one for one in events if b"output_text" in one]):
            read += await client.piece()
        client.leave()
        await call.until_gone()
    await gate.idle()


async def start_a_stream(gate: Gateway) -> None:
    body = json.dumps({"model": "gpt-5", "input": "think", "background": True, "stream": True}).encode()
    created = event(0, "response.created", response=response("in_progress"))
    await read_and_leave(gate, "POST", RESPONSES, body, created, delta(1))


async def hide(gate: Gateway, how: str) -> InterceptionRecord:
    if how == "cancel":
        await ask(gate, "POST", "/resp_1/cancel", response("cancelled", usage=None, output=[]), {})
    else:
        await delete(gate, response("in_progress"), {"deleted": True})
    return await ended(gate)


@pytest.mark.parametrize("how", ["cancel", "delete"])
async def test_a_stream_that_is_read_and_cancelled_costs_what_was_read(how: str) -> None:
    """A client that reads a stream and then cancels or deletes the response pays for what it has read."""
    async with gateway(prices=PRICES) as gate:
        await start_a_stream(gate)
        record = await hide(gate, how)
    assert record.ending is not None
    assert (record.ending.status, record.ending.cost, record.ending.cost_estimated) == (Status.CANCELLED, 5000, True)
    assert [usage.output_tokens for usage in record.facts.token_usages] == [500]


async def test_a_stream_that_is_read_piece_by_piece_costs_all_of_them() -> None:
    async with gateway(prices=PRICES) as gate:
        await start_a_stream(gate)
        again = f"{RESPONSES}/resp_1?stream=true&starting_after=1"
        await read_and_leave(gate, "GET", again, b"", delta(2), delta(3))
        record = await hide(gate, "cancel")
    assert record.ending is not None
    assert (record.ending.cost, record.ending.cost_estimated) == (15_000, True)


async def test_a_response_that_is_deleted_unread_costs_what_its_usage_says() -> None:
    """The gateway asks for the outcome before it passes the deletion on, since nobody can tell it afterwards."""
    async with gateway(prices=PRICES) as gate:
        await begin(gate)
        await delete(gate, response("completed"), {"deleted": True})
        record = await ended(gate)
    assert record.ending is not None
    assert (record.ending.status, record.ending.cost, record.ending.cost_estimated) == (Status.COMPLETED, 90, False)


async def test_the_usage_of_the_outcome_replaces_what_was_seen() -> None:
    async with gateway(prices=PRICES) as gate:
        await start_a_stream(gate)
        await ask(gate, "GET", "/resp_1", response("completed"))
        record = await ended(gate)
    assert record.ending is not None
    assert (record.ending.cost, record.ending.cost_estimated) == (90, False)


async def test_a_response_that_fails_unread_has_no_known_cost() -> None:
    async with gateway(prices=PRICES) as gate:
        await begin(gate)
        await ask(gate, "GET", "/resp_1", response("failed"))
        record = await ended(gate)
    assert record.ending is not None
    assert (record.ending.status, record.ending.cost) == (Status.FAILED, None)


async def test_a_deletion_waits_for_memory_for_the_outcome() -> None:
    """A caller that fills its own memory cannot delete responses unread: the deletion is refused before it is sent."""
    mib = 2**20
    async with gateway(prices=PRICES, memory={"bodies": 16 * mib}, max_body_size=8 * mib) as gate:
        await begin(gate)
        async with gate.connected() as client:
            head = {"Content-Length": str(4 * mib), "Content-Type": "application/json"}
            await client.send("POST", RESPONSES, b" " * (2 * mib), headers=head)
            await until(lambda: gate.aibridge.pool.metrics().leases)
            await turns()
            refused = await gate.request("DELETE", f"{RESPONSES}/resp_1")
            assert (refused.status, b"out_of_memory" in refused.body) == (503, True)
        await gate.idle()
        await delete(gate, response("completed"), {"deleted": True})
        record = await ended(gate)
    assert record.ending is not None
    assert record.ending.cost == 90
