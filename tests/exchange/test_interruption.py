"""Interruptions of a running request from outside."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import pytest
from starlette.types import Message

from fastapi_aibridge.exchange import interruption as module
from fastapi_aibridge.exchange.interruption import ClientGone, Interruption

pytestmark = pytest.mark.anyio


class Reason(Exception):
    pass


class Client:
    """A client that stays connected until it is told to leave."""

    def __init__(self) -> None:
        self.leave = asyncio.Event()
        self.watched = asyncio.Event()
        self.gone = asyncio.Event()
        self.asked = 0

    async def __call__(self) -> Message:
        self.asked += 1
        self.watched.set()
        if self.asked == 1:
            return {"type": "http.request"}
        await self.leave.wait()
        self.gone.set()
        return {"type": "http.disconnect"}


async def forever(*, finally_do: Callable[[], None]) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        finally_do()


class Request:
    """A task that waits for ever within an interruption."""

    def __init__(self, client: Client | None = None) -> None:
        self.interruption = Interruption(client or Client())
        self.inside = asyncio.Event()
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        with self.interruption:
            self.inside.set()
            await asyncio.Event().wait()


@pytest.fixture(autouse=True)
def watch_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WATCH_AFTER", 0.0)


async def test_an_undisturbed_block_ends_as_it_would() -> None:
    """An undisturbed block ends with its result or its own error, and leaves no task running."""
    before = asyncio.all_tasks()
    client = Client()
    with Interruption(client):
        await client.watched.wait()
        assert asyncio.all_tasks() > before
    with pytest.raises(ValueError, match="own"), Interruption(Client()):
        raise ValueError("own")
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_an_interruption_raises_its_reason_in_the_block() -> None:
    """The reason of an interruption is raised in the block, and the task is not cancelled."""
    request = Request()
    await request.inside.wait()
    request.interruption.interrupt(Reason())
    with pytest.raises(Reason):
        await request.task
    assert not request.task.cancelled()
    assert request.task.cancelling() == 0


async def test_the_task_can_still_work_after_an_interruption() -> None:
    """The task can await after an interruption: it still has to write a response."""
    interruption = Interruption(Client())
    asyncio.get_running_loop().call_soon(interruption.interrupt, Reason())
    with pytest.raises(Reason), interruption:
        await asyncio.Event().wait()
    await asyncio.sleep(0)


async def test_one_that_comes_early_is_raised_at_the_start() -> None:
    """An early interruption is raised at the start: a bridge may close while its request is being recorded."""
    interruption = Interruption(Client())
    interruption.interrupt(Reason())
    entered = False
    with pytest.raises(Reason), interruption:
        entered = True
    assert not entered


async def test_the_first_reason_counts() -> None:
    """The first of several reasons is raised, both before and within the block."""
    request = Request()
    await request.inside.wait()
    request.interruption.interrupt(Reason("first"))
    request.interruption.interrupt(Reason("second"))
    with pytest.raises(Reason, match="first"):
        await request.task
    interruption = Interruption(Client())
    interruption.interrupt(Reason("first"))
    interruption.interrupt(Reason("second"))
    with pytest.raises(Reason, match="first"), interruption:
        pass


async def test_a_settled_block_can_still_be_ended() -> None:
    """A settled block can still be interrupted, because its client may never take the last bytes."""
    request = Request()
    await request.inside.wait()
    request.interruption.settle()
    request.interruption.interrupt(ClientGone())
    request.interruption.interrupt(Reason())
    with pytest.raises(Reason):
        await request.task


async def test_settling_after_an_interruption_comes_too_late() -> None:
    """Settling after an interruption does not stop its reason from being raised."""
    interruption = Interruption(Client())
    asyncio.get_running_loop().call_soon(interruption.interrupt, Reason())
    with pytest.raises(Reason), interruption:
        await forever(finally_do=interruption.settle)


async def test_after_the_block_nothing_happens() -> None:
    """An interruption after the block has no effect on the task."""
    interruption = Interruption(Client())
    with interruption:
        pass
    interruption.interrupt(Reason())
    await asyncio.sleep(0)


async def test_a_block_that_swallows_the_cancellation_is_still_interrupted() -> None:
    """If a library in the block swallows the cancellation, the reason is raised at the end of the block."""
    interruption = Interruption(Client())
    asyncio.get_running_loop().call_soon(interruption.interrupt, Reason())
    with pytest.raises(Reason), interruption, contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()


async def test_an_error_on_the_way_out_is_not_hidden() -> None:
    """An error raised during cleanup is not hidden by the reason, and the task is left uncancelled."""

    def fail() -> None:
        raise OSError("own")

    interruption = Interruption(Client())
    asyncio.get_running_loop().call_soon(interruption.interrupt, Reason())
    with pytest.raises(OSError, match="own"), interruption:
        await forever(finally_do=fail)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@pytest.mark.parametrize("outer_first", [True, False])
async def test_cancellation_from_outside_wins(outer_first: bool) -> None:
    """Cancellation from outside takes precedence over an interruption, in either order."""
    request = Request()
    await request.inside.wait()
    if outer_first:
        request.task.cancel()
        request.interruption.interrupt(Reason())
    else:
        request.interruption.interrupt(Reason())
        request.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request.task
    assert request.task.cancelled()


async def test_cancellation_alone_passes() -> None:
    """A cancellation without an interruption is raised unchanged."""
    request = Request()
    await request.inside.wait()
    request.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request.task


async def test_a_client_that_leaves_interrupts() -> None:
    """A client that leaves interrupts the block; other messages before the disconnect are skipped."""
    client = Client()
    request = Request(client)
    await request.inside.wait()
    client.leave.set()
    with pytest.raises(ClientGone):
        await request.task
    assert client.asked == 2


async def test_a_client_that_leaves_after_the_last_bytes_is_none() -> None:
    """A client that leaves after the block is settled does not interrupt it: many close the connection at once."""
    client = Client()
    client.leave.set()
    interruption = Interruption(client)
    with interruption:
        interruption.settle()
        await client.gone.wait()
        await asyncio.sleep(0)


async def test_a_short_request_is_not_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short request has no watcher task, because the task would cost more than it saves."""
    monkeypatch.setattr(module, "WATCH_AFTER", 60.0)
    client = Client()
    with Interruption(client):
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert client.asked == 0
