"""The loopback server that the tests' upstreams are made of."""

from __future__ import annotations

import asyncio

import pytest

from .loopback import Loopback

pytestmark = pytest.mark.anyio


class Lavish(Loopback):
    """An upstream that writes more than a socket buffers and returns without waiting until it is read."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes(SIZE))


SIZE = 16 * 1024 * 1024


async def test_what_is_left_to_send_is_sent() -> None:
    """Everything written is sent, even to a client that reads late, and the close raises no error."""
    async with Lavish() as upstream:
        reader, writer = await asyncio.open_connection(upstream.host, upstream.port)
        await asyncio.sleep(0.01)
        assert len(await reader.read()) == SIZE
        writer.close()
        await writer.wait_closed()
