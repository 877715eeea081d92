"""Request bodies are read within the limit."""

from __future__ import annotations

import pytest
from starlette.types import Message, Receive

from fastapi_aibridge.errors import GatewayError
from fastapi_aibridge.exchange.body import ClientGone, read_body

pytestmark = pytest.mark.anyio


class Client:
    """Sends these messages, then nothing more; counts what was asked for."""

    def __init__(self, *messages: Message) -> None:
        self._messages = list(messages)
        self.asked = 0

    async def __call__(self) -> Message:
        self.asked += 1
        return self._messages.pop(0)


def piece(body: bytes, *, more: bool) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


async def read(receive: Receive, limit: int = 10, *headers: tuple[bytes, bytes]) -> bytes:
    return await read_body({"type": "http", "headers": list(headers)}, receive, limit)


async def test_a_body_in_one_piece() -> None:
    """Up to the limit, and none at all."""
    assert await read(Client(piece(b"0123456789", more=False))) == b"0123456789"
    assert await read(Client(piece(b"", more=False))) == b""
    assert await read(Client({"type": "http.request"})) == b""


async def test_a_body_in_pieces() -> None:
    """Joined in order, empty ones among them; a piece that does not say so is the last."""
    client = Client(piece(b"01", more=True), piece(b"", more=True), piece(b"23", more=True), {"type": "http.request"})
    assert await read(client) == b"0123"
    assert client.asked == 4


@pytest.mark.parametrize("length", [b"11", b"9" * 20, b"9" * 5000])
async def test_an_announced_length_over_the_limit_is_refused_unread(length: bytes) -> None:
    """Before a byte has been taken in."""
    client = Client()
    with pytest.raises(GatewayError, match="larger than 10 bytes") as refused:
        await read(client, 10, (b"content-length", length))
    assert (refused.value.status, refused.value.code, client.asked) == (413, "request_too_large", 0)


@pytest.mark.parametrize("length", [b"10", b"0", b"-1", b"x", b"", b"+99", b"1e9"])
async def test_other_lengths_are_not_believed(length: bytes) -> None:
    """What counts is what comes."""
    assert await read(Client(piece(b"0123", more=False)), 10, (b"content-length", length)) == b"0123"


async def test_a_body_that_grows_over_the_limit_is_refused_then() -> None:
    """Chunked bodies announce nothing: no more is read than shows that it is too much."""
    client = Client(piece(b"0123456789", more=True), piece(b"x", more=True), piece(b"y", more=True))
    with pytest.raises(GatewayError, match="10 bytes"):
        await read(client)
    assert client.asked == 2


async def test_a_last_piece_over_the_limit_is_refused() -> None:
    """One byte is enough, in the only piece as in the last."""
    with pytest.raises(GatewayError, match="10 bytes"):
        await read(Client(piece(b"0123456789x", more=False)))
    with pytest.raises(GatewayError, match="10 bytes"):
        await read(Client(piece(b"0123456789", more=True), piece(b"x", more=False)))


async def test_a_client_that_leaves() -> None:
    """Before the body or within it, however little was missing."""
    with pytest.raises(ClientGone):
        await read(Client({"type": "http.disconnect"}))
    with pytest.raises(ClientGone):
        await read(Client(piece(b"01", more=True), {"type": "http.disconnect"}))
