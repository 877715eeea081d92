"""The plugin's effect on the process's garbage collector."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from fastapi import FastAPI

from fastapi_aibridge import AIBridge, MemoryRecorder, Settings
from fastapi_aibridge.process.garbage import THRESHOLDS

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def as_python_has_it() -> Iterator[None]:
    thresholds = gc.get_threshold()
    gc.unfreeze()
    gc.set_threshold(700, 10, 10)
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


async def test_what_is_there_at_the_start_is_frozen_until_the_end() -> None:
    """The objects that exist at the start are excluded from collections while an app runs."""
    app, other = FastAPI(), FastAPI()
    app.include_router(AIBridge(Settings(), recorder=MemoryRecorder()).router)
    other.include_router(AIBridge(Settings(), recorder=MemoryRecorder()).router)
    async with app.router.lifespan_context(app):
        assert gc.get_freeze_count() > 10_000
        async with other.router.lifespan_context(other):
            assert gc.get_freeze_count() > 10_000
        assert gc.get_freeze_count() > 10_000
    assert gc.get_freeze_count() == 0


async def test_full_collections_are_rare_until_the_end() -> None:
    """Full collections are rare while an app runs, because thousands of open streams would trigger them in vain."""
    app, other = FastAPI(), FastAPI()
    app.include_router(AIBridge(Settings(), recorder=MemoryRecorder()).router)
    other.include_router(AIBridge(Settings(), recorder=MemoryRecorder()).router)
    async with app.router.lifespan_context(app):
        async with other.router.lifespan_context(other):
            assert gc.get_threshold() == THRESHOLDS
        assert gc.get_threshold() == THRESHOLDS
    assert gc.get_threshold() == (700, 10, 10)


async def test_what_the_host_has_frozen_stays_so() -> None:
    gc.freeze()
    aibridge = AIBridge(Settings(), recorder=MemoryRecorder())
    async with aibridge.lifespan(None):
        pass
    assert gc.get_freeze_count() > 10_000


@pytest.mark.parametrize("chosen", [(50_000, 20, 20), (0, 10, 10), (2000, 10, 0)])
async def test_what_the_host_has_chosen_holds(chosen: tuple[int, int, int]) -> None:
    """Thresholds that the host has changed are left alone."""
    gc.set_threshold(*chosen)
    aibridge = AIBridge(Settings(), recorder=MemoryRecorder())
    async with aibridge.lifespan(None):
        assert gc.get_threshold() == chosen
    assert gc.get_threshold() == chosen


async def test_what_the_host_chooses_later_holds() -> None:
    aibridge = AIBridge(Settings(), recorder=MemoryRecorder())
    async with aibridge.lifespan(None):
        gc.set_threshold(9000, 9, 9)
    assert gc.get_threshold() == (9000, 9, 9)


async def test_it_can_be_switched_off() -> None:
    aibridge = AIBridge(Settings(gc_freeze=False), recorder=MemoryRecorder())
    async with aibridge.lifespan(None):
        assert gc.get_freeze_count() == 0
        assert gc.get_threshold() == (700, 10, 10)
