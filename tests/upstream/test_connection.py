"""The timeouts of a connection to an upstream, and the pauses in reading from it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from fastapi_aibridge.upstream import connection as upstream
from fastapi_aibridge.upstream.failures import SILENT
from fastapi_aibridge.upstream.origin import TimeLimits
from fastapi_aibridge.upstream.response import HIGH_WATER

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
SILENCE = 10.0
LIMITS = TimeLimits(None, SILENCE, SILENCE)


class Loop:
    """The parts of an event loop that the protocol needs, with a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Callable[[], None], asyncio.TimerHandle]] = []
        self.set = 0
        self._real = asyncio.new_event_loop()

    def time(self) -> float:
        return self.now

    def create_future(self) -> asyncio.Future[None]:
        return self._real.create_future()

    def call_at(self, when: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, (), cast("Any", self._real))
        self.timers.append((when, callback, handle))
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
        self.written = b""

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False
        self.resumed += 1

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None: ...

    def set_write_buffer_limits(self, high: int) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes) -> None:
        self.written += data


class Connection:
    """A connection that has sent a request."""

    def __init__(self, limits: TimeLimits = LIMITS) -> None:
        self.loop = Loop()
        self.transport = Transport()
        self.limits = limits
        self.protocol = upstream.Connection(cast("Any", self.loop))
        self.protocol.connection_made(cast("Any", self.transport))
        self.ask()

    def ask(self) -> None:
        self.response = self.protocol.send("POST", b"/", b"h", [], b"{}", self.limits)

    @property
    def timed_out(self) -> bool:
        return self.response._failure is SILENT


@pytest.fixture
def connection() -> Any:
    made = Connection()
    yield made
    made.loop.close()


def test_silence_ends_a_connection(connection: Connection) -> None:
    """A connection times out a fixed time after the last byte, not earlier."""
    connection.loop.move(9)
    connection.protocol.data_received(HEAD)
    connection.loop.move(9)
    assert not connection.timed_out
    connection.loop.move(2)
    assert connection.timed_out


def test_bytes_set_no_timers(connection: Connection) -> None:
    """A stream of many small pieces sets one timer for each timeout period, not one for each piece."""
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
    """The silence timeout stops while reading is paused, and starts again when reading goes on."""
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


def test_the_first_byte_has_a_time_of_its_own() -> None:
    """The timeout until the first byte and the timeout between pieces are separate limits."""
    for first_byte, silence in ((5.0, 50.0), (50.0, 5.0)):
        one = Connection(TimeLimits(None, first_byte, silence))
        one.loop.move(first_byte - 1)
        assert not one.timed_out
        one.protocol.data_received(HEAD)
        one.loop.move(silence - 1)
        assert not one.timed_out
        one.loop.move(2)
        assert one.timed_out
        waits = Connection(TimeLimits(None, first_byte, silence))
        waits.loop.move(first_byte + 1)
        assert waits.timed_out
        one.loop.close()
        waits.loop.close()


def test_requests_in_a_row_set_one_timer(connection: Connection) -> None:
    """A connection with many requests in a row sets one timer."""
    for _ in range(50):
        connection.protocol.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        assert connection.response.complete
        connection.loop.move(0.1)
        connection.ask()
    assert connection.loop.set == 1


def test_reading_resumes_only_where_it_was_paused(connection: Connection) -> None:
    """The transport's reading is resumed only if it was paused."""
    connection.protocol.data_received(HEAD + b"x")
    connection.response.leftovers()
    assert connection.transport.resumed == 0
    fill(connection)
    assert connection.transport.paused
    connection.response.leftovers()
    assert connection.transport.resumed == 1


def test_a_full_buffer_stays_paused(connection: Connection) -> None:
    """The end of a hold does not resume reading while the buffer is full."""
    connection.protocol.data_received(b"HTTP/1.1 200 OK\r\n\r\n")
    connection.protocol.hold()
    fill(connection)
    connection.protocol.go_on()
    assert connection.transport.paused
    connection.response.leftovers()
    assert not connection.transport.paused


def test_what_is_in_the_buffer_is_no_silence(connection: Connection) -> None:
    """A reader that is slow to empty the buffer does not make its upstream time out."""
    connection.protocol.data_received(b"HTTP/1.1 200 OK\r\n\r\n")
    fill(connection)
    connection.loop.move(100)
    assert not connection.timed_out
    connection.response.leftovers()
    connection.loop.move(SILENCE - 1)
    assert not connection.timed_out
    connection.loop.move(2)
    assert connection.timed_out


def fill(connection: Connection) -> None:
    while not connection.transport.paused or connection.response.size <= HIGH_WATER:
        connection.protocol.data_received(b"x" * 10_000)
