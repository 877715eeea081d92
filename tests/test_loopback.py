"""The upstreams of the tests themselves."""

from __future__ import annotations

import asyncio

import pytest

from .loopback import Loopback

pytestmark = pytest.mark.anyio


class Lavish(Loopback):
    """Answers more than a socket takes at once, and leaves without waiting for it to be read."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes(SIZE))


SIZE = 16 * 1024 * 1024


async def test_what_is_left_to_send_is_sent() -> None:
    """Also to a client that is slow to begin; and the end of that is no error."""
    async with Lavish() as upstream:
        reader, writer = await asyncio.open_connection(upstream.host, upstream.port)
        await asyncio.sleep(0.01)
        assert len(await reader.read()) == SIZE
        writer.close()
        await writer.wait_closed()
