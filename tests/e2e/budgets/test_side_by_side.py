"""Concurrent requests cannot overspend a budget together, on one worker or on several."""

from __future__ import annotations

import asyncio

import pytest

from tests.e2e.records.process import Spawner
from tests.waiting import until

from .processes import CENT, PATIENCE, ask, counter, gateways, statuses
from .upstream import HeldUpstream

pytestmark = pytest.mark.anyio

BUDGET = 200 * CENT


async def test_two_hundred_at_once_against_a_budget_for_twenty(url: str, spawner: Spawner) -> None:
    """A budget of two dollars admits 20 of 200 concurrent requests that reserve ten cents each.

    Each costs one cent, so more pass afterwards, until less than ten cents are left. Spent and reserved amounts
    together never exceed two dollars.
    """
    number = 1 if url.startswith("sqlite") else 4
    async with HeldUpstream() as upstream:
        processes = gateways(spawner, upstream.url, url, number, usd=2)
        for process in processes:
            await process.start()
        ports = [process.port for process in processes]
        async with counter(url) as held:
            watching = asyncio.create_task(held.watch(stop := asyncio.Event()))
            asking = [asyncio.create_task(ask(ports[place % number])) for place in range(200)]
            await until(lambda: sum(task.done() for task in asking) + upstream.calls >= 200, PATIENCE)
            assert upstream.calls == 20
            assert await held.read() == (0, BUDGET)
            upstream.release.set()
            answers = await asyncio.gather(*asking)
            found = statuses(answers)
            assert found == {200: 20, 429: 180}, {one.body for one in answers if one is not None}
            passed = 20
            for _ in range(200):
                answers = await asyncio.gather(*(ask(ports[place % number]) for place in range(20)))
                found = statuses(answers)
                assert set(found) <= {200, 429}
                passed += found.get(200, 0)
                if 200 not in found:
                    break
            stop.set()
            await watching
            spent, reserved = 0, 1
            async with asyncio.timeout(PATIENCE):
                while reserved:
                    spent, reserved = await held.read()
            assert spent == passed * CENT == upstream.answered * CENT
            # Less than one reservation is left, and the budget is never exceeded.
            assert BUDGET - 10 * CENT < spent <= BUDGET
            assert held.most <= BUDGET
            assert held.looks > 20
        for process in processes:
            await process.stop()
