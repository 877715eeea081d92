"""Request bodies are read within their limits of size, time and memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest
from starlette.types import Message, Receive

from fastapi_aibridge.errors import GatewayError
from fastapi_aibridge.exchange import body as body_module
from fastapi_aibridge.exchange.body import read_body
from fastapi_aibridge.exchange.body_budget import BodyBudget, Holding
from fastapi_aibridge.exchange.fair_queue import FairQueue
from fastapi_aibridge.exchange.interruption import ClientGone, Interruption

pytestmark = pytest.mark.anyio

SHARE = FairQueue().share("alice")


class Client:
    """A client that sends these messages and counts the calls of `receive`."""

    def __init__(self, *messages: Message) -> None:
        self._messages = list(messages)
        self.asked = 0

    async def __call__(self) -> Message:
        self.asked += 1
        return self._messages.pop(0)


def piece(body: bytes, *, more: bool) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


async def arrive(receive: Receive, limit: int, holding: Holding, headers: Iterable[tuple[bytes, bytes]] = ()) -> bytes:
    scope = {"type": "http", "headers": list(headers)}
    with Interruption() as interruption:
        body = await read_body(scope, receive, limit, holding, interruption)
    return body[:]


async def read(receive: Receive, limit: int = 10, *headers: tuple[bytes, bytes]) -> bytes:
    holding = BodyBudget(1000).holding("alice")
    body = await arrive(receive, limit, holding, list(headers))
    assert holding.size == len(body)
    return body


async def test_a_body_in_one_piece() -> None:
    """A body in one piece is read up to the limit, and may be empty."""
    assert await read(Client(piece(b"0123456789", more=False))) == b"0123456789"
    assert await read(Client(piece(b"", more=False))) == b""
    assert await read(Client({"type": "http.request"})) == b""


async def test_a_body_in_pieces() -> None:
    """Pieces are joined in order, empty ones too; a piece without `more_body` is the last."""
    client = Client(piece(b"01", more=True), piece(b"", more=True), piece(b"23", more=True), {"type": "http.request"})
    assert await read(client) == b"0123"
    assert client.asked == 4


@pytest.mark.parametrize("length", [b"11", b"9" * 20, b"9" * 5000])
async def test_an_announced_length_over_the_limit_is_refused_unread(length: bytes) -> None:
    """A body with an announced length over the limit is refused before a byte is read."""
    client = Client()
    with pytest.raises(GatewayError, match="larger than 10 bytes") as refused:
        await read(client, 10, (b"content-length", length))
    assert (refused.value.status, refused.value.code, client.asked) == (413, "request_too_large", 0)


@pytest.mark.parametrize("length", [b"10", b"0", b"-1", b"x", b"", b"+99", b"1e9"])
async def test_other_lengths_are_not_believed(length: bytes) -> None:
    """A length within the limit, or an invalid one, is ignored: the bytes received count."""
    assert await read(Client(piece(b"0123", more=False)), 10, (b"content-length", length)) == b"0123"


async def test_a_body_that_grows_over_the_limit_is_refused_then() -> None:
    """A body without an announced length is read only until it exceeds the limit."""
    client = Client(piece(b"0123456789", more=True), piece(b"x", more=True), piece(b"y", more=True))
    with pytest.raises(GatewayError, match="10 bytes"):
        await read(client)
    assert client.asked == 2


async def test_a_last_piece_over_the_limit_is_refused() -> None:
    """One byte over the limit in the last piece is enough to refuse the body."""
    with pytest.raises(GatewayError, match="10 bytes"):
        await read(Client(piece(b"0123456789x", more=False)))
    with pytest.raises(GatewayError, match="10 bytes"):
        await read(Client(piece(b"0123456789", more=True), piece(b"x", more=False)))


async def test_a_client_that_leaves() -> None:
    """A client that leaves before the end of its body raises `ClientGone`."""
    with pytest.raises(ClientGone):
        await read(Client({"type": "http.disconnect"}))
    with pytest.raises(ClientGone):
        await read(Client(piece(b"01", more=True), {"type": "http.disconnect"}))


class Trickle:
    """A client that sends each piece after a pause, and then stays silent."""

    def __init__(self, pause: float, *pieces: bytes) -> None:
        self._pause = pause
        self._pieces = list(pieces)

    async def __call__(self) -> Message:
        if not self._pieces:
            await asyncio.Event().wait()
        await asyncio.sleep(self._pause)
        return piece(self._pieces.pop(0), more=True)


async def test_a_body_that_stays_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent client gets a 408, before the first piece or after it, and its memory is released."""
    monkeypatch.setattr(body_module, "SILENCE", 0.05)
    for client in (Trickle(0), Trickle(0, b"01", b"23")):
        budget = BodyBudget(1000)
        holding = budget.holding("alice")
        with pytest.raises(GatewayError, match="did not arrive") as refused:
            await arrive(client, 10, holding)
        assert (refused.value.status, refused.value.code) == (408, "request_timeout")
        assert refused.value.headers == {"connection": "close"}
        holding.release()
        assert budget.used == 0


async def test_a_body_that_comes_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece restarts the silence timeout, and a longer timeout limits the whole body."""
    monkeypatch.setattr(body_module, "SILENCE", 0.5)
    monkeypatch.setattr(body_module, "ARRIVAL", 60)
    last = Trickle(0.06, *[b"0"] * 10)
    holding = BodyBudget(1000).holding("alice")
    with pytest.raises(GatewayError, match="did not arrive"):
        await arrive(last, 1000, holding)
    assert not last._pieces  # so it took longer than one silence timeout
    monkeypatch.setattr(body_module, "ARRIVAL", 0.2)
    with pytest.raises(GatewayError, match="did not arrive"):
        await arrive(endless := Trickle(0.02, *[b"x"] * 500), 1000, holding)
    assert len(endless._pieces) > 400


async def test_reading_can_be_interrupted() -> None:
    """Reading can be interrupted: a bridge that closes ends a request whose body is still missing."""
    arrival = Interruption()

    async def reading() -> None:
        holding = BodyBudget(1000).holding("alice")
        with arrival:
            await read_body({"type": "http", "headers": []}, Trickle(0), 10, holding, arrival)

    task = asyncio.create_task(reading())
    await asyncio.sleep(0.01)
    arrival.interrupt(GatewayError(503, "shutting_down", "closing"))
    with pytest.raises(GatewayError, match="closing"):
        await task


async def test_no_memory_for_a_body_is_told_before_it_is_read() -> None:
    """Without memory for an announced body it is refused unread, without a length as soon as it does not fit."""
    budget = BodyBudget(1000)
    held = budget.holding("bob")
    held.grow(400)
    client = Client(piece(b"x" * 100, more=True), piece(b"x" * 300, more=True), piece(b"x" * 300, more=True))
    for headers, asked in (([(b"content-length", b"350")], 0), ([], 2)):
        holding = budget.holding("alice")
        with pytest.raises(GatewayError) as refused:
            await arrive(client, 500, holding, headers)
        holding.release()
        assert (refused.value.status, refused.value.code, client.asked) == (503, "out_of_memory", asked)
        assert refused.value.headers["retry-after"] == "1"


async def test_a_body_that_could_never_be_held_is_too_large() -> None:
    """A body that could never fit into the budget gives 413 instead of 503, because a retry would not help."""
    holding = BodyBudget(1000).holding("alice")
    with pytest.raises(GatewayError, match="500 bytes") as refused:
        await arrive(Client(), 10_000, holding, [(b"content-length", b"501")])
    assert refused.value.status == 413
