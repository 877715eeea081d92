"""Base URLs of https whose server has no TLS or a bad certificate."""

from __future__ import annotations

import asyncio
import ssl

import pytest
import trustme

from fastapi_aibridge import Status
from tests.e2e.gateway.bodies import WIRES, Wire
from tests.e2e.gateway.gateway import ANTHROPIC_KEY, OPENAI_KEY

from .harness import harness
from .leftovers import held, nothing_left_over
from .proxy import Fault, Link

pytestmark = pytest.mark.anyio

seen = bytearray()


async def plain_http(link: Link) -> None:
    """Answer a TLS handshake as a plain HTTP server does."""
    seen.extend(await link.receive())
    await link.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno")
    link.close()


async def plain_http_unasked(link: Link) -> None:
    await link.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    seen.extend(await link.receive())
    link.close()


async def reset_in_the_handshake(link: Link) -> None:
    seen.extend(await link.receive())
    link.reset()


async def cut_in_the_handshake(link: Link) -> None:
    seen.extend(await link.receive())
    await link.send(b"\x16\x03\x03\x00\x7a\x02\x00\x00")
    link.close()


async def stalls_in_the_handshake(link: Link) -> None:
    seen.extend(await link.receive())
    await link.silence()


def server_context(name: str) -> ssl.SSLContext:
    """Make a TLS context whose certificate comes from an untrusted authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert(name).configure_cert(context)
    return context


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
@pytest.mark.parametrize("stream", [False, True], ids=["blocking", "streamed"])
@pytest.mark.parametrize(
    ("greet", "status"),
    [
        (plain_http, 502),
        (plain_http_unasked, 502),
        (reset_in_the_handshake, 502),
        (cut_in_the_handshake, 502),
        (stalls_in_the_handshake, 504),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_no_tls(greet: Fault, status: int, wire: Wire, *, stream: bool) -> None:
    """A failed TLS handshake gives the caller an error, and neither keys nor prompt have been sent."""
    seen.clear()
    async with harness(https=True) as home:
        before = held(home.aibridge)
        home.proxy.greet = greet
        answer = await home.ask(wire, stream=stream)
        assert answer.status == status
        assert wire.is_error(answer.body)
        assert (await home.ending(answer)).status is Status.FAILED
        await home.proxy.hang_up()
        await nothing_left_over(before, home.aibridge)
    for private in (OPENAI_KEY, ANTHROPIC_KEY, "say it"):
        assert private.encode() not in seen


@pytest.mark.parametrize("name", ["127.0.0.1", "example.com"])
@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
async def test_bad_certificate(wire: Wire, name: str) -> None:
    """A certificate of an untrusted authority is refused, whether its name is right or not."""
    async with harness(https=True, tls=server_context(name)) as home:
        before = held(home.aibridge)
        for stream in (False, True):
            answer = await home.ask(wire, stream=stream)
            assert answer.status == 502
            assert wire.is_error(answer.body)
            assert b"TLS" in answer.body
            assert (await home.ending(answer)).status is Status.FAILED
        assert home.proxy.requests == 0
        await home.proxy.hang_up()
        await asyncio.sleep(0)
        await nothing_left_over(before, home.aibridge)
