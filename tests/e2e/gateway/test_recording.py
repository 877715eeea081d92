"""Failures of the recorder, and their effects on requests."""

from __future__ import annotations

import asyncio

import pytest

from fastapi_aibridge import Ending, Facts, Interception, Status
from tests.waiting import until

from .bodies import CHAT, WIRES, Wire
from .gateway import CountingRecorder, gateway

pytestmark = pytest.mark.anyio
each = pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)


class Failing(CountingRecorder):
    def __init__(self, *, at: str) -> None:
        super().__init__()
        self.at = at

    async def start(self, interception: Interception) -> None:
        if self.at == "start":
            raise OSError("the disk is full, says postgresql://user:s3cret@db")
        await super().start(interception)

    async def end(self, interception_id: str, ending: Ending, facts: Facts) -> None:
        await super().end(interception_id, ending, facts)
        if self.at == "end":
            raise OSError("the disk is full")


class Slow(CountingRecorder):
    """A recorder whose starts wait for the test."""

    def __init__(self) -> None:
        super().__init__()
        self.may_start = asyncio.Event()

    async def start(self, interception: Interception) -> None:
        await super().start(interception)
        await self.may_start.wait()


@each
async def test_what_cannot_be_recorded_is_not_done(wire: Wire) -> None:
    """If the start cannot be recorded, the client gets 503 and the upstream is not called."""
    async with gateway(recorder=Failing(at="start")) as gate:
        answer = await gate.request("POST", wire.target, wire.ask(stream=True))
        assert answer.status == 503
        assert answer.header("retry-after")
        assert wire.is_error(answer.body)
        assert b"s3cret" not in answer.body
        assert gate.upstream.untouched
        await gate.idle()
        assert isinstance(gate.recorder, CountingRecorder)
        assert gate.recorder.ends == []


@each
async def test_an_end_that_cannot_be_recorded_is_not_the_clients_problem(wire: Wire) -> None:
    """If the end cannot be recorded, the client still has its response and keeps its connection."""
    async with gateway(recorder=Failing(at="end")) as gate, gate.connected() as client:
        for _ in range(2):
            await client.send("POST", wire.target, wire.ask(stream=True))
            call = await gate.upstream.call()
            await call.stream(*wire.events)
            await call.end()
            assert (await client.answer()).body == b"".join(wire.events)


async def test_the_start_is_recorded_before_the_upstream_is_called() -> None:
    """The upstream is not called before the start is recorded."""
    recorder = Slow()
    async with gateway(recorder=recorder) as gate:
        asked = asyncio.create_task(gate.request("POST", CHAT.target, CHAT.ask()))
        await until(lambda: recorder.starts)
        await asyncio.sleep(0.05)
        assert len(recorder.starts) == 1
        assert gate.upstream.untouched
        recorder.may_start.set()
        await (await gate.upstream.call()).answer(CHAT.blocking)
        assert (await asked).status == 200


async def test_a_client_that_leaves_while_its_start_is_recorded() -> None:
    """A client that leaves while its start is recorded has its interception cancelled, once."""
    recorder = Slow()
    async with gateway(recorder=recorder) as gate:
        async with gate.connected() as client:
            await client.send("POST", CHAT.target, CHAT.ask())
            await until(lambda: recorder.starts)
        recorder.may_start.set()
        record = await gate.record()
        assert record.ending is not None
        assert record.ending.status is Status.CANCELLED
        await gate.idle()
        assert recorder.starts == recorder.ends


async def test_a_request_that_is_cancelled_while_its_start_is_recorded() -> None:
    """A start that may have been written gets its end, even if the server cancels the request meanwhile."""
    recorder = Slow()
    options = {"as_deployed": True, "timeout_graceful_shutdown": 0}
    async with gateway(recorder=recorder, server=options) as gate:
        asked = asyncio.create_task(gate.request("POST", CHAT.target, CHAT.ask()))
        await until(lambda: recorder.starts)
        await gate.server.stop()
        await asked
        assert recorder.starts == recorder.ends
        assert gate.upstream.untouched


class Cancelling(CountingRecorder):
    """A recorder whose own tasks are cancelled, as a driver's are when its pool closes."""

    def __init__(self, at: str) -> None:
        super().__init__()
        self.at = at

    async def start(self, interception: Interception) -> None:
        if self.at == "start":
            raise asyncio.CancelledError
        await super().start(interception)

    async def end(self, interception_id: str, ending: Ending, facts: Facts) -> None:
        await super().end(interception_id, ending, facts)
        if self.at == "end":
            raise asyncio.CancelledError


async def test_a_recorder_that_is_cancelled_is_not_taken_for_the_caller() -> None:
    """A cancelled recorder counts as a failed one: 503 at the start, and no effect on the client at the end."""
    async with gateway(recorder=Cancelling("start")) as gate:
        answer = await gate.request("POST", CHAT.target, CHAT.ask(stream=True))
        assert (answer.status, answer.header("retry-after")) == (503, "5")
        assert gate.upstream.untouched
    async with gateway(recorder=Cancelling("end")) as gate, gate.connected() as client:
        for _ in range(2):
            await client.send("POST", CHAT.target, CHAT.ask(stream=False))
            await (await gate.upstream.call()).answer(CHAT.blocking)
            assert (await client.answer()).body == CHAT.blocking
