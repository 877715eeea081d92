"""The fault proxy itself: it must cope with anything that the gateway does meanwhile."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest

from tests.waiting import until

from .model import Model
from .proxy import FaultProxy, Link

pytestmark = pytest.mark.anyio


async def test_half_close_of_a_connection_that_is_gone() -> None:
    """A half close is no error if the gateway has just reset its connection."""
    gateway = socket.socket()
    gateway.setblocking(False)
    gateway.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    ended = []

    async def reset_by_the_gateway(link: Link) -> None:
        gateway.close()
        await link.half_close()
        ended.append(link.open)

    async with Model() as model, FaultProxy(model.port, lambda: reset_by_the_gateway) as proxy:
        loop = asyncio.get_running_loop()
        await loop.sock_connect(gateway, ("127.0.0.1", proxy.port))
        await loop.sock_sendall(gateway, b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")
        await until(lambda: ended)
    assert ended == [False]
