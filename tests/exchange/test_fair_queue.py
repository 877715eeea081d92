"""Fair queuing between initiators, in rounds of a real event loop."""

from __future__ import annotations

import asyncio
import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_aibridge.exchange.fair_queue import ALONE, CALM, CROWD, CROWDED, PIECE, QUANTUM, START, FairQueue, Share
from tests.upstream.clock import MovableClock

pytestmark = pytest.mark.anyio


async def work(share: Share, cost: int, done: list[str], name: str) -> None:
    if not share.take(cost):
        await share.turn(cost)
    done.append(name)


def taken(share: Share) -> int:
    """Return the number of pieces that the share still takes in this round."""
    return sum(1 for _ in iter(lambda: share.take(PIECE), False))


async def a_round() -> None:
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_below_its_share_nobody_waits() -> None:
    """Work within the share never waits, and each round starts with a full share."""
    share = FairQueue().share("alice")
    for _ in range(3):
        assert taken(share) == ALONE
        await a_round()


async def test_who_is_alone_has_more() -> None:
    """An initiator alone has a larger share; it shrinks while others are active and for a while after."""
    clock = MovableClock()
    queue = FairQueue(clock=clock)
    alice, bob = queue.share("alice"), queue.share("bob")
    assert taken(alice) == ALONE
    assert taken(bob) == QUANTUM
    for _ in range(3):
        await a_round()
        assert taken(alice) == QUANTUM
        clock.now += CALM / 4
    await a_round()
    assert bob.take(PIECE)
    clock.now += CALM
    assert taken(alice) == QUANTUM
    clock.now += 2 * CALM
    await a_round()
    assert taken(alice) == ALONE


async def test_a_crowd_goes_in_small_steps() -> None:
    """An initiator with many waiters has a small share even if alone, so that new connections get in."""
    share = FairQueue().share("alice")
    done: list[str] = []
    tasks = [asyncio.create_task(work(share, PIECE, done, "alice")) for _ in range(ALONE + 2 * CROWD)]
    steps: dict[bool, list[int]] = {True: [], False: []}
    await asyncio.sleep(0)
    assert len(done) == ALONE
    while len(done) < len(tasks):
        before = len(done)
        await asyncio.sleep(0)
        steps[len(tasks) - before >= CROWD].append(len(done) - before)
    assert max(steps[True]) == CROWDED
    assert max(steps[False]) == ALONE


async def test_a_start_counts_for_more() -> None:
    """The start of a request costs as much as several pieces of a stream."""
    share = FairQueue().share("alice")
    assert [share.take(START) for _ in range(ALONE // START + 1)] == [True] * (ALONE // START) + [False]


async def test_a_flood_does_not_hold_others_up() -> None:
    """A waiting flood of one initiator does not delay another's work."""
    queue = FairQueue()
    done: list[str] = []
    flood, quiet = queue.share("flood"), queue.share("quiet")
    async with asyncio.TaskGroup() as group:
        for _ in range(1000):
            group.create_task(work(flood, PIECE, done, "flood"))
        group.create_task(work(quiet, PIECE, done, "quiet"))
    assert done.index("quiet") == ALONE
    assert done.count("flood") == 1000


async def test_first_come_first_served() -> None:
    """The work of one initiator is done in order, up to a share of it in each round."""
    share = FairQueue().share("alice")
    done: list[str] = []
    seen: list[int] = []
    names = [str(number) for number in range(5 * ALONE)]
    tasks = [asyncio.create_task(work(share, PIECE, done, name)) for name in names]
    while len(done) < len(tasks):
        await asyncio.sleep(0)
        seen.append(len(done))
    assert done == names
    assert max(after - before for before, after in zip([0, *seen], seen, strict=False)) == ALONE


async def test_who_waits_goes_before_who_comes() -> None:
    """New work does not overtake waiting work."""
    share = FairQueue().share("alice")
    done: list[str] = []
    waiting = [asyncio.create_task(work(share, ALONE, done, str(number))) for number in range(3)]
    while "1" not in done:  # noqa: ASYNC110 - one round of the loop at a time
        await asyncio.sleep(0)
    assert not share.take(PIECE)
    await asyncio.gather(*waiting)


async def test_who_goes_away_gives_the_place_up() -> None:
    """Cancelled waiters use up no turns."""
    share = FairQueue().share("alice")
    done: list[str] = []
    tasks = [asyncio.create_task(work(share, ALONE, done, str(number))) for number in range(50)]
    await asyncio.sleep(0)
    for task in tasks[1:-1]:
        task.cancel()
    rounds = 0
    while not tasks[-1].done():
        await asyncio.sleep(0)
        rounds += 1
    assert done == ["0", "49"]
    assert rounds <= 4


async def test_one_share_for_all_of_one_initiator() -> None:
    """All bridges of an initiator have one share, which is forgotten when nothing refers to it."""
    queue = FairQueue()
    first, second = queue.share("alice"), queue.share("alice")
    assert first is second
    assert queue.share("bob") is not first
    del first, second
    gc.collect()
    assert list(queue._shares) == []


async def test_an_idle_queue_does_nothing() -> None:
    """After the last work no callback is left in the loop."""
    queue = FairQueue()
    share = queue.share("alice")
    assert share.take(PIECE)
    await a_round()
    assert queue._busy == []


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([PIECE, START])), max_size=60))
def test_all_is_done_and_nobody_takes_more_than_a_share(works: list[tuple[str, int]]) -> None:
    """Each round does at most a share of each initiator's work, until all is done, in any order of arrival."""

    async def run() -> None:
        queue = FairQueue(clock=MovableClock())
        others = queue.share("x"), queue.share("y")
        assert [one.take(PIECE) for one in others] == [True, True]  # so that no initiator is alone
        done: list[tuple[str, int]] = []

        async def one(initiator: str, cost: int) -> None:
            share = queue.share(initiator)
            if not share.take(cost):
                await share.turn(cost)
            done.append((initiator, cost))

        tasks = [asyncio.create_task(one(*each)) for each in works]
        before = 0
        for _ in range(4 * len(works) + 4):
            await asyncio.sleep(0)
            for initiator in "abc":
                costs = [cost for name, cost in done[before:] if name == initiator]
                assert sum(costs[:-1]) < QUANTUM
            before = len(done)
        assert all(task.done() for task in tasks)
        assert sorted(done) == sorted(works)

    asyncio.run(run())
