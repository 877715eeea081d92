"""Long work in short steps, and the time that it leaves to others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator

import pytest

from fastapi_aibridge.exchange.fair_queue import FairQueue
from fastapi_aibridge.exchange.steps import REST, SLICE, in_steps, later

pytestmark = pytest.mark.anyio


def work(slices: int) -> Generator[None, None, str]:
    for _ in range(slices):
        time.sleep(SLICE)
        yield
    return "done"


async def test_long_work_rests_where_others_have_requests() -> None:
    """After each slice of long work the event loop rests while others have requests, even if those only wait."""
    queue = FairQueue(is_shared=lambda: True)
    begun = time.perf_counter()
    assert await in_steps(work(10), queue.share("mallory")) == "done"
    assert time.perf_counter() - begun >= 8 * (SLICE + REST)
    assert REST >= 0.001, "uvloop takes less for nothing"


async def test_who_is_alone_does_not_rest() -> None:
    """An initiator is alone unless others have requests at the moment."""
    shared = False
    share = FairQueue(is_shared=lambda: shared).share("mallory")
    assert share.is_alone
    shared = True
    assert not share.is_alone
    shared = False
    assert share.is_alone


async def test_work_for_later_is_done_between_others() -> None:
    """Work for later is done in one step for each round of the event loop."""
    done: list[int] = []

    def steps() -> Generator[None, None, None]:
        for number in range(5):
            done.append(number)
            yield

    later(steps())
    assert done == []
    for _ in range(3):
        await asyncio.sleep(0)
    assert 1 <= len(done) <= 3
    for _ in range(5):
        await asyncio.sleep(0)
    assert done == [0, 1, 2, 3, 4]


def test_work_for_later_is_done_at_once_without_an_event_loop() -> None:
    done: list[int] = []

    def steps() -> Generator[None, None, None]:
        done.append(1)
        yield

    later(steps())
    assert done == [1]
