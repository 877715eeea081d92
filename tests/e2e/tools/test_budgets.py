"""Budgets in a loop with injected tools: each round has a reservation of its own."""

from __future__ import annotations

from typing import Any

import pytest

from fastapi_aibridge import Status
from fastapi_aibridge.testing import Reply, Usage

from ...formats.rounds.driving import MESSAGES, Kind
from ...mcp.servers import ToolServer
from .harness import harness, tool

pytestmark = pytest.mark.anyio

CENT = {"m": {"input": 0, "output": 10_000}}
SIX = Usage(input_tokens=0, output_tokens=6)


@pytest.mark.parametrize("usd", [0.15, 0.16])
async def test_a_round_that_does_not_fit_ends_the_loop(
    kind: Kind, streamed: bool, server: ToolServer, usd: float
) -> None:
    """A round that does not fit into the budget ends the loop with an error in the vendor's form, in a stream too.

    Ten cents are reserved for each of two rounds that cost six: fifteen are too few, sixteen are enough. The cost of
    the first round stays spent.
    """
    values = {
        "prices": {"openai": CENT, "anthropic": CENT},
        "budgets": [{"scope": "initiator", "id": "alice", "usd": usd}],
        "budget_default_output": 10,
    }
    script = [
        Reply("Wait.", tool_calls=[tool("echo", "c1", text="one")], usage=SIX),
        Reply("Done.", usage=SIX),
    ]
    async with harness(script, {"box": server.url}, **values) as home:
        bound: dict[str, Any] = {"max_tokens": 10} if kind is MESSAGES else {}
        answer = await home.request(kind, streamed=streamed, tools=[kind.own_tool], **bound)
        record = await home.record()
        counters = home.recorder.counters
        (counted,) = counters._ledger.counters.values()
        assert record.ending is not None
        if usd > 0.15:
            assert answer.status == 200
            assert (record.ending.status, record.ending.cost) == (Status.COMPLETED, 120_000)
            assert counted == (120_000, 0)
            return
        assert answer.status == (200 if streamed else 429)
        assert (b"billing_error" if kind is MESSAGES else b"insufficient_quota") in answer.body
        assert b"are left of the budget of USD 0.15 for this month" in answer.body
        assert (record.ending.status, record.ending.cost) == (Status.FAILED, 60_000)
        assert counted == (60_000, 0)
        assert len(home.upstream) == 1
