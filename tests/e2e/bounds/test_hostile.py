"""What one principal sends does not take the service from another, nor the memory from the machine."""

from __future__ import annotations

import pytest

from .hostile import MIB, watch

pytestmark = pytest.mark.anyio


async def test_hostile_requests_beside_honest_ones() -> None:
    """A short form of `python -m tests.e2e.bounds.hostile`: every honest question is answered, and soon enough."""
    seen = await watch(8, phase=4, recorded=False)
    assert seen.failures == []
    assert len(seen.beside) > 50
    # A machine that tests share with others is not quiet enough for a ratio of times that are a few milliseconds.
    assert seen.p99(seen.beside) < max(2 * seen.p99(seen.alone), 0.25), str(seen)
    assert seen.resident - seen.before < 1024 * MIB, str(seen)
