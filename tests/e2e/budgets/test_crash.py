"""Reservations after `kill -9` in the middle of requests."""

from __future__ import annotations

import asyncio

import pytest

from tests.e2e.records.process import Spawner
from tests.waiting import until

from .processes import CENT, PATIENCE, ask, counter, gateways
from .upstream import HeldUpstream

pytestmark = pytest.mark.anyio

AT_ONCE = 100


async def test_kill_9_leaves_nothing_reserved_and_counts_each_cost_once(url: str, spawner: Spawner) -> None:
    """After `kill -9` and a restart nothing is reserved, and the counter equals the sum of the recorded costs."""
    rounds = 10 if url.startswith("sqlite") else 3
    async with HeldUpstream() as upstream:
        (process,) = gateways(spawner, upstream.url, url, 1, usd=1000)
        await process.start()
        async with counter(url) as held:
            for turn in range(rounds):
                upstream.release.clear()
                before = upstream.calls
                asking = [asyncio.create_task(ask(process.port)) for _ in range(AT_ONCE)]
                await until(lambda of=before: upstream.calls - of >= AT_ONCE // 2, PATIENCE)  # type: ignore[misc]
                if turn % 2:
                    upstream.release.set()  # some requests have ended, and some of their ends are not written yet
                    await until(held.has_grown, PATIENCE)
                else:
                    assert (await held.read())[1] >= AT_ONCE // 2 * 10 * CENT
                await process.kill()
                await asyncio.gather(*asking)
                await process.start()
                spent, reserved = await held.read()
                assert reserved == 0
                records = await process.records()
                costs = [record["cost_usd"] or 0 for record in records.values()]
                assert set(costs) <= {0, 0.01}
                assert spent == round(sum(costs) * 100) * CENT
                assert {record["status"] for record in records.values()} <= {"completed", "interrupted", "cancelled"}
            assert spent > 0
        await process.stop()
