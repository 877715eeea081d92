"""Budget counters in memory."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from fastapi_aibridge.budget import period_start
from fastapi_aibridge.recorder.memory import MemoryRecorder
from fastapi_aibridge.recorder.records import Facts
from fastapi_aibridge.recorder.reservations import Counted, CounterKey

from .builders import ending, interception

pytestmark = pytest.mark.anyio


async def test_counters_of_past_periods_do_not_catch_up() -> None:
    """A budget that newly applies concerns its present period: what is spent now was not spent in an earlier one."""
    now = datetime.now(UTC)
    today = CounterKey("initiator", "alice", "day", period_start("day", now))
    earlier = CounterKey("initiator", "alice", "day", today.start - timedelta(days=1))
    recorder = MemoryRecorder()
    await recorder.counters.open([earlier, today])
    one = interception(started_at=now)
    await recorder.start(one)
    await recorder.end(one.id, ending(cost=7), Facts())
    await recorder.counters.catch_up([("initiator", "alice", "day")])
    counted = await recorder.counters.counted([earlier, today])
    assert counted == {earlier: Counted(0, 0), today: Counted(7, 0)}
