"""Wrong keys: the log's warning and the delay of responses."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from fastapi_aibridge.observability import wrong_keys
from fastapi_aibridge.observability.wrong_keys import ADDRESSES, DELAY, MANY, WAITING, WINDOW, WrongKeys

pytestmark = pytest.mark.anyio


class Counting:
    def __init__(self) -> None:
        self.seen: list[tuple[str, bool]] = []

    def wrong_key(self, kind: str, *, many: bool) -> None:
        self.seen.append((kind, many))


class Guesses:
    """A table of wrong keys whose clock the test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []
        self.metrics = Counting()
        self.table = WrongKeys(self.metrics, clock=lambda: self.now, sleep=self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    async def send(self, address: str | None = "10.0.0.9", times: int = 1, kind: str = "client") -> None:
        scope: dict[str, Any] = {"client": None if address is None else (address, 1234)}
        for _ in range(times):
            await self.table.note(scope, kind)


async def test_ten_in_a_minute_are_told_once_and_further_ones_slowed(caplog: pytest.LogCaptureFixture) -> None:
    """The tenth wrong key is logged with address and kind, further ones are delayed, and the metric counts each."""
    guesses = Guesses()
    await guesses.send(times=MANY - 1, kind="admin")
    assert (caplog.messages, guesses.slept) == ([], [])
    await guesses.send(kind="admin")
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "10 wrong admin keys or tokens from 10.0.0.9" in caplog.text
    assert guesses.slept == []
    await guesses.send(times=5, kind="admin")
    assert (len(caplog.messages), guesses.slept) == (1, [DELAY] * 5)
    assert guesses.metrics.seen == [("admin", number == MANY - 1) for number in range(MANY + 5)]


async def test_a_minute_later_all_is_forgotten() -> None:
    """A minute later the count starts again, so that a client with a corrected key is not delayed."""
    guesses = Guesses()
    await guesses.send(times=MANY)
    guesses.now += WINDOW
    await guesses.send(times=MANY)
    assert guesses.slept == []
    await guesses.send()
    assert guesses.slept == [DELAY]


async def test_others_are_not_slowed() -> None:
    """Each IPv4 address and each IPv6 network, whose owner has all its addresses, is counted separately."""
    guesses = Guesses()
    await guesses.send("10.0.0.1", MANY)
    await guesses.send("10.0.0.2")
    await guesses.send(None)
    assert guesses.slept == []
    for number in range(MANY + 1):
        await guesses.send(f"2001:db8::{number:x}")
    assert guesses.slept == [DELAY]
    await guesses.send("2001:db8:0:1::1")
    assert guesses.slept == [DELAY]


async def test_the_table_is_bounded() -> None:
    """The oldest addresses are dropped, but not those that continue."""
    guesses = Guesses()
    await guesses.send("10.0.0.9", MANY)
    for number in range(ADDRESSES * 2):
        await guesses.send(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
        if number % 100 == 0:
            await guesses.send("192.0.2.1")
    assert len(guesses.table._addresses) == ADDRESSES
    await guesses.send("192.0.2.1")
    assert guesses.slept[-1] == DELAY


async def test_what_waits_is_bounded() -> None:
    """The number of delayed responses is bounded, so that a flood does not fill the memory."""
    free = asyncio.Event()

    async def sleep(_: float) -> None:
        await free.wait()

    table = WrongKeys(Counting(), sleep=sleep)
    scope = {"client": ("10.0.0.9", 1)}
    waiting = [asyncio.ensure_future(table.note(scope, "client")) for _ in range(MANY + WAITING)]
    await asyncio.sleep(0)
    await asyncio.wait_for(table.note(scope, "client"), 1)
    free.set()
    await asyncio.gather(*waiting)


async def test_the_delay_can_be_felt() -> None:
    """The delay works with the real clock."""
    assert DELAY >= 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wrong_keys, "DELAY", 0.05)
        table = WrongKeys(Counting())
        for _ in range(MANY):
            await table.note({"client": ("10.0.0.9", 1)}, "client")
        begun = asyncio.get_running_loop().time()
        await table.note({"client": ("10.0.0.9", 1)}, "client")
        assert asyncio.get_running_loop().time() - begun >= 0.049
