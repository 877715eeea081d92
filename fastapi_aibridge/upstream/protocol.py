"""One connection to an upstream: what aiohttp's own protocol leaves undone."""

from __future__ import annotations

import asyncio

from aiohttp import ClientPayloadError
from aiohttp.client_proto import ResponseHandler


class Protocol(ResponseHandler):
    """Tells whoever reads a body that it will never end, where its framing is broken.

    Needed because aiohttp then closes the connection, drops the timeout, and tells only who waits for a head: who
    reads the body would wait for ever.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._exception is None:
            return
        body = self._payload
        if body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(ClientPayloadError("the body's framing is broken"), self._exception)
