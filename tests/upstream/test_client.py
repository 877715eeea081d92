"""The client on real sockets: shared connections, large and broken bodies, and responses at unusual times."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import pytest

from fastapi_aibridge import GatewayError
from fastapi_aibridge.errors import UpstreamTimeout
from fastapi_aibridge.upstream import connections as pools
from fastapi_aibridge.upstream.client import UpstreamClient
from fastapi_aibridge.upstream.connections import ConnectionPools
from fastapi_aibridge.upstream.origin import Origin, TimeLimits, origin_of
from fastapi_aibridge.upstream.response import UpstreamResponse
from tests.garbage import nothing_left
from tests.loopback import Loopback, read_request
from tests.waiting import until

pytestmark = pytest.mark.anyio

LIMITS = TimeLimits(10, 10, 10)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
Play = Callable[[asyncio.StreamReader, asyncio.StreamWriter, int], Awaitable[None]]


async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
    while True:
        await read_request(reader)
        writer.write(OK)


class Server(Loopback):
    """A server that handles each connection with the function given to it."""

    def __init__(self, play: Play = answers) -> None:
        super().__init__()
        self.play = play
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        await self.play(reader, writer, self.connections)


@dataclass
class Pair:
    client: UpstreamClient
    server: Server
    origin: Origin

    async def send(self, body: bytes = b"{}", method: str = "POST", limits: TimeLimits = LIMITS) -> UpstreamResponse:
        return await self.client.send(self.origin, method, b"/x", [], body, limits)

    async def ask(self, body: bytes = b"{}", method: str = "POST", limits: TimeLimits = LIMITS) -> bytes:
        response = await self.send(body, method, limits)
        received = b""
        while piece := await response.read_some():
            received += piece
        response.close()
        return received


@asynccontextmanager
async def pair(play: Play = answers, *, per_origin: int = 100) -> AsyncIterator[Pair]:
    async with Server(play) as server, UpstreamClient(per_origin=per_origin) as client:
        yield Pair(client, server, origin_of(server.url)[0])


async def test_a_connection_is_used_again() -> None:
    """Requests in sequence share a connection, concurrent ones have one each."""
    async with pair() as one:
        for _ in range(5):
            assert await one.ask() == b"{}"
        assert one.server.connections == 1
        await asyncio.gather(*(one.ask() for _ in range(5)))
        assert one.server.connections == 5


async def test_an_answer_that_nobody_has_asked_for_serves_nobody() -> None:
    """An idle connection on which a byte arrives is closed and never used again."""
    poison = asyncio.Event()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        await read_request(reader)
        writer.write(OK)
        if number == 1:
            await poison.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
        await answers(reader, writer, number)

    async with pair(play) as one:
        await one.ask()
        poison.set()
        await until(lambda: not len(one.client))
        assert await one.ask() == b"{}"
        assert one.server.connections == 2


async def test_a_second_answer_in_the_same_segment_serves_nobody() -> None:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        await read_request(reader)
        writer.write(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
        await reader.read()

    async with pair(play) as one:
        for number in range(1, 4):
            assert await one.ask() == b"{}"
            assert one.server.connections == number


async def test_the_number_of_connections_has_a_bound() -> None:
    """Requests over the limit of connections wait up to their timeout; cancelled ones free their place."""
    go = asyncio.Event()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        while True:
            await read_request(reader)
            await go.wait()
            writer.write(OK)

    async with pair(play, per_origin=2) as one:
        running = [asyncio.create_task(one.ask()) for _ in range(6)]
        await until(lambda: one.server.connections == 2)
        with pytest.raises(UpstreamTimeout):
            await one.ask(limits=TimeLimits(0.05, 1, 1))
        running.pop().cancel()
        go.set()
        assert set(await asyncio.gather(*running)) == {b"{}"}
        assert one.server.connections == 2
        assert len(one.client) == 2


async def test_idle_connections_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Idle connections are closed after a time without traffic."""
    monkeypatch.setattr(pools, "IDLE_FOR", 0.05)
    async with pair() as one:
        await asyncio.gather(*(one.ask() for _ in range(3)))
        await until(lambda: not len(one.client))


async def test_connections_grow_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection is replaced at a maximum age even if it is busy, because its name may have a new address."""
    monkeypatch.setattr(pools, "MAX_AGE", -1.0)
    async with pair() as one:
        for number in range(1, 4):
            await one.ask()
            await asyncio.sleep(0.01)
            assert one.server.connections == number


async def test_the_number_of_origins_has_a_bound() -> None:
    """Idle connections to the oldest origins are closed when there are too many origins."""
    async with Server() as server, UpstreamClient() as client:
        client._pools = ConnectionPools(max_origins=3)
        for number in range(20):
            origin = origin_of(server.url)[0]._replace(named=f"h{number}")
            response = await client.send(origin, "GET", b"/", [], b"", LIMITS)
            await response.read_some()
        await until(lambda: len(client) <= 3)
        assert len(client._pools._pools) <= 3


async def test_a_large_body_goes_as_fast_as_it_is_read() -> None:
    """The timeout for a large request body starts only when its last byte has been written."""
    body = bytes(range(256)) * 2**17

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        reader._limit = 2**16  # type: ignore[attr-defined] # else it would take the body from the socket at once
        await reader.readuntil(b"\r\n\r\n")
        for place in range(0, len(body), 2**21):
            assert await reader.readexactly(2**21) == body[place : place + 2**21]
            await asyncio.sleep(0.1)
        writer.write(OK)
        await answers(reader, writer, number)

    async with pair(play) as one:
        assert await one.ask(body, limits=TimeLimits(5, 1, 1)) == b"{}"
        assert await one.ask() == b"{}"
        assert one.server.connections == 1


async def test_an_upstream_that_does_not_read_is_silent() -> None:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        await asyncio.Event().wait()

    async with pair(play) as one:
        with pytest.raises(UpstreamTimeout):
            await one.ask(b"x" * 2**26, limits=TimeLimits(5, 0.2, 0.2))
        await until(lambda: not len(one.client))


@pytest.mark.parametrize("closes", [True, False])
async def test_an_answer_before_the_request_was_sent(*, closes: bool) -> None:
    """A response before the end of the request is valid, and the connection is not used again."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        await writer.drain()
        await asyncio.sleep(0.2)
        if not closes:
            await asyncio.Event().wait()

    async with pair(play) as one:
        response = await one.send(b"x" * 2**26)
        assert (response.status, await response.read_some()) == (413, b"no")
        response.close()
        await until(lambda: not len(one.client))


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_a_body_that_ends_with_the_connection(version: bytes) -> None:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        await read_request(reader)
        for piece in (b"HTTP/" + version + b" 200 OK\r\n\r\n", b"a" * 1000, b"b" * 1000):
            writer.write(piece)
            await asyncio.sleep(0.01)

    async with pair(play) as one:
        assert await one.ask() == b"a" * 1000 + b"b" * 1000


async def test_requests_are_written_exactly() -> None:
    """Headers are written in order and byte for byte, with only the framing that is needed."""
    seen: list[bytes] = []

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        while True:
            seen.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 204 Fine\r\n\r\n")

    async with pair(play) as one:
        headers = [(b"B", b"\xff"), (b"a", b""), (b"B", b"2")]
        for method in ("POST", "GET", "PATCH"):
            await one.client.send(one.origin, method, b"/a%20b?c", headers, b"", LIMITS)
    host = b"Host: 127.0.0.1:%d\r\n" % one.server.port
    rest = b"B: \xff\r\na: \r\nB: 2\r\n\r\n"
    length = b"Content-Length: 0\r\n"
    assert seen == [
        b"POST /a%20b?c HTTP/1.1\r\n" + host + length + rest,
        b"GET /a%20b?c HTTP/1.1\r\n" + host + rest,
        b"PATCH /a%20b?c HTTP/1.1\r\n" + host + length + rest,
    ]


async def test_a_slow_reader_holds_its_upstream_back() -> None:
    """Reading stops at the buffer limit for a slow reader, even after a hold."""
    sent = 0

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        nonlocal sent
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % 2**26)
        for _ in range(2**10):
            writer.write(b"x" * 2**16)
            await writer.drain()
            sent += 2**16

    async with pair(play) as one:
        response = await one.send()
        await response.hold(asyncio.sleep(0.2))
        await asyncio.sleep(0.2)
        assert sent < 2**24
        size = 0
        while piece := await response.read_some():
            size += len(piece)
            assert len(piece) < 2**21
        assert size == 2**26


@pytest.mark.parametrize("stream_asked", [False, True])
async def test_an_answer_that_comes_before_it_is_waited_for(*, stream_asked: bool) -> None:
    """Reading that a full buffer has stopped goes on when a larger amount is awaited."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % 2**21 + b"x" * 2**21)
        await writer.drain()

    async with pair(play) as one, asyncio.timeout(10):
        response = await one.send()
        await asyncio.sleep(0.1)
        await response.read_ahead(stream_asked=stream_asked)
        size = 0
        while piece := await response.read_some():
            size += len(piece)
        assert size == 2**21


async def test_nothing_is_left_to_the_garbage_collector() -> None:
    """Successful, broken, timed out and cancelled exchanges leave no reference cycles."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        await read_request(reader)
        if number == 1:
            writer.write(OK)
            await answers(reader, writer, number)
        writer.write([b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", b"no HTTP\r\n\r\n"][number % 3])
        if number % 2:
            await reader.read()

    async with pair(play) as one:
        await one.ask()
        with nothing_left("fastapi_aibridge.upstream"):
            await one.ask()
            responses = [await one.send()]  # keeps the first connection busy
            await responses.pop().hold(asyncio.sleep(0))
            busy = [asyncio.create_task(_failing(one)) for _ in range(12)]
            await asyncio.gather(*busy)
            busy.clear()
            given_up = asyncio.create_task(one.ask())
            await asyncio.sleep(0.01)
            given_up.cancel()
            await asyncio.wait([given_up])
            del given_up
            await asyncio.sleep(0.05)


async def _failing(one: Pair) -> None:
    with suppress(GatewayError):
        await one.ask(limits=TimeLimits(1, 0.1, 0.1))
