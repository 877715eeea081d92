"""A connection to an upstream: silence, and bytes that are left in the socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from fastapi_aibridge.upstream.protocol import Protocol

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
SILENCE = 10.0


class Loop:
    """What the protocol needs of an event loop, with a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Callable[[], None], asyncio.TimerHandle]] = []
        self.set = 0
        self._real = asyncio.new_event_loop()

    def time(self) -> float:
        return self.now

    def create_future(self) -> asyncio.Future[None]:
        return self._real.create_future()

    def call_later(self, seconds: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(self.now + seconds, callback, (), cast("Any", self._real))
        self.timers.append((self.now + seconds, callback, handle))
        self.set += 1
        return handle

    def move(self, seconds: float) -> None:
        self.now += seconds
        due = [one for one in self.timers if one[0] <= self.now]
        self.timers = [one for one in self.timers if one[0] > self.now]
        for _, callback, handle in due:
            if not handle.cancelled():
                callback()

    def close(self) -> None:
        self._real.close()


class Transport:
    def __init__(self) -> None:
        self.paused = False
        self.resumed = 0

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False
        self.resumed += 1

    def get_extra_info(self, name: str) -> None: ...

    def is_closing(self) -> bool:
        return False

    def close(self) -> None: ...


class Connection:
    def __init__(self) -> None:
        self.loop = Loop()
        self.transport = Transport()
        self.protocol = Protocol(cast("Any", self.loop))
        self.protocol.connection_made(cast("Any", self.transport))
        self.protocol.set_response_params(read_timeout=SILENCE, auto_decompress=False)
        self.protocol.start_timeout()

    @property
    def timed_out(self) -> bool:
        return isinstance(self.protocol.exception(), asyncio.TimeoutError)


@pytest.fixture
def connection() -> Any:
    made = Connection()
    yield made
    made.loop.close()


def test_silence_ends_a_connection(connection: Connection) -> None:
    """So many seconds after the last byte, not earlier."""
    connection.loop.move(9)
    connection.protocol.data_received(HEAD)
    connection.loop.move(9)
    assert not connection.timed_out
    connection.loop.move(2)
    assert connection.timed_out


def test_bytes_set_no_timers(connection: Connection) -> None:
    """A stream of small events costs one timer for each time of silence that would be allowed, not one each."""
    connection.protocol.data_received(HEAD)
    for _ in range(900):
        connection.loop.move(0.02)
        connection.protocol.data_received(b"x")
    assert connection.loop.set <= 3
    connection.loop.move(9.9)
    assert not connection.timed_out
    connection.loop.move(0.2)
    assert connection.timed_out


def test_no_time_out_while_held(connection: Connection) -> None:
    """What is not read is no silence of the upstream; it counts from when reading goes on."""
    connection.protocol.data_received(HEAD)
    connection.protocol.hold()
    assert connection.transport.paused
    connection.loop.move(25)
    assert not connection.timed_out
    connection.protocol.go_on()
    assert not connection.transport.paused
    connection.loop.move(9)
    assert not connection.timed_out
    connection.loop.move(11)
    assert connection.timed_out


def test_reading_resumes_only_where_it_was_paused(connection: Connection) -> None:
    """A read from the buffer of a connection that was not paused leaves the transport alone."""
    connection.protocol.data_received(HEAD)
    connection.protocol.resume_reading()
    assert connection.transport.resumed == 0
    connection.protocol.pause_reading()
    connection.protocol.resume_reading()
    assert connection.transport.resumed == 1


def test_a_full_buffer_stays_paused(connection: Connection) -> None:
    """Where the reader is slow, the end of a hold does not open the socket."""
    connection.protocol.data_received(HEAD)
    connection.protocol.hold()
    connection.protocol.pause_reading()
    connection.protocol.go_on()
    assert connection.transport.paused
