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
    # That of the event loop does not depend on the machine, but for what it does while a question waits upstream.
    assert seen.p99(seen.loop_beside) < 0.05, str(seen)
    assert seen.resident - seen.before < 512 * MIB, str(seen)
