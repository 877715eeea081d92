from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fastapi_aibridge.budget import period_end, period_start
from fastapi_aibridge.exchange import interception_log
from fastapi_aibridge.recorder.reservations import Counted, CounterKey
from fastapi_aibridge.recorder.sql import SQLRecorder
from tests.e2e.gateway.gateway import gateway

from .serving import BODIES, CHAT, PRICES, budget

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("period", "moment", "start", "end"),
    [
        ("day", "2026-12-31T23:59:59+00:00", "2026-12-31", "2027-01-01"),
        ("week", "2026-11-29T23:59:59+00:00", "2026-11-23", "2026-11-30"),
        ("week", "2027-01-01T00:00:00+00:00", "2026-12-28", "2027-01-04"),
        ("month", "2026-12-15T12:00:00+00:00", "2026-12-01", "2027-01-01"),
        ("month", "2028-02-29T12:00:00+00:00", "2028-02-01", "2028-03-01"),
        ("month", "2026-11-01T00:30:00+01:00", "2026-10-01", "2026-11-01"),
    ],
)
def test_periods_are_those_of_utc(period: str, moment: str, start: str, end: str) -> None:
    """Periods begin and end in UTC, and weeks begin on Monday."""
    begun = period_start(period, datetime.fromisoformat(moment))
    assert begun.isoformat() == f"{start}T00:00:00+00:00"
    assert period_end(period, begun).isoformat() == f"{end}T00:00:00+00:00"


async def test_a_month_turns_while_requests_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request counts in the month in which it started; the new month begins with nothing spent."""

    class Clock(datetime):
        moment = datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC)

        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return cls.moment.astimezone(tz)

    monkeypatch.setattr(interception_log, "datetime", Clock)
    months = [CounterKey("initiator", "alice", "month", datetime(2026, month, 1, tzinfo=UTC)) for month in (11, 12)]
    recorder = SQLRecorder("sqlite+aiosqlite://")
    async with gateway(recorder=recorder, budgets=[budget(0.12)], prices=PRICES) as gate:

        async def ask() -> int:
            body = {"model": "gpt-5", **BODIES[CHAT]}
            return (await gate.request("POST", CHAT, json.dumps(body).encode())).status

        november = asyncio.create_task(ask())
        call_of_november = await gate.upstream.call()
        assert await ask() == 429
        Clock.moment += timedelta(seconds=2)
        december = asyncio.create_task(ask())
        call_of_december = await gate.upstream.call()
        assert (await recorder.counters.counted(months)) == dict.fromkeys(months, Counted(0, 100_000))
        usage = {"prompt_tokens": 0, "completion_tokens": 5, "total_tokens": 5}
        for call in (call_of_november, call_of_december):
            await call.answer(json.dumps({"id": "c", "choices": [], "usage": usage}).encode())
        assert [await one for one in (november, december)] == [200, 200]
        assert (await recorder.counters.counted(months)) == dict.fromkeys(months, Counted(50_000, 0))
