"""What the gateway does to the process's garbage collector."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from fastapi import FastAPI

from fastapi_aibridge import AIBridge, MemoryRecorder, Settings

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def nothing_frozen() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.unfreeze()


async def test_what_is_there_at_the_start_is_frozen_until_the_end() -> None:
    """No full collection goes through the app's own objects while it runs."""
    app, other = FastAPI(), FastAPI()
    app.include_router(AIBridge(Settings(), recorder=MemoryRecorder()).router)
    other.include_router(AIBridge(Settings(), recorder=MemoryRecorder()).router)
    async with app.router.lifespan_context(app):
        assert gc.get_freeze_count() > 10_000
        async with other.router.lifespan_context(other):
            assert gc.get_freeze_count() > 10_000
        assert gc.get_freeze_count() > 10_000
    assert gc.get_freeze_count() == 0


async def test_what_the_host_has_frozen_stays_so() -> None:
    gc.freeze()
    aibridge = AIBridge(Settings(), recorder=MemoryRecorder())
    async with aibridge.lifespan(None):
        pass
    assert gc.get_freeze_count() > 10_000


async def test_it_can_be_switched_off() -> None:
    aibridge = AIBridge(Settings(gc_freeze=False), recorder=MemoryRecorder())
    async with aibridge.lifespan(None):
        assert gc.get_freeze_count() == 0
