"""One principal's requests neither keep another's from being served nor exhaust the machine's memory."""

from __future__ import annotations

import pytest

from .hostile import MIB, Seen, watch

pytestmark = pytest.mark.anyio


def bound(seen: Seen) -> float:
    """The most seconds of the p99 under attack; on a shared machine a ratio of a few milliseconds would be noise."""
    return max(2 * seen.p99(seen.alone), 0.25)


async def test_hostile_requests_beside_honest_ones() -> None:
    """In a short run of `python -m tests.e2e.bounds.hostile` every honest question is answered, and soon enough."""
    for _ in range(3):
        seen = await watch(8, phase=4, recorded=False)
        if seen.p99(seen.beside) < bound(seen):
            break  # otherwise try again: the machine may have been busy
    assert seen.failures == []
    assert len(seen.beside) > 50
    assert seen.p99(seen.beside) < bound(seen), str(seen)
    # The event loop's time does not depend on the machine's load, only on other work while a question waits upstream.
    assert seen.p99(seen.loop_beside) < 0.05, str(seen)
    assert seen.resident - seen.before < 512 * MIB, str(seen)
