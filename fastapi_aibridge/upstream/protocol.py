"""One connection to an upstream: what aiohttp's own protocol leaves undone, or does too often."""

from __future__ import annotations

import asyncio

from aiohttp import ClientPayloadError
from aiohttp.client_proto import ResponseHandler


class Protocol(ResponseHandler):
    """Reads an upstream's answers.

    Whoever reads a body is told that it will never end where its framing is broken: aiohttp closes the connection then,
    drops the timeout, and tells only who waits for a head.

    aiohttp sets a timer for each piece that comes, and resumes after each piece that is read, paused or not. For a
    stream of small events that costs more than all the rest, so here it is done where it is needed.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._heard_at = 0.0
        self._is_held = False

    def data_received(self, data: bytes) -> None:
        if self._skip_payload:
            data = self._without_body(data)
        super().data_received(data)
        if self._exception is None:
            return
        body = self._payload
        if body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(ClientPayloadError("the body's framing is broken"), self._exception)

    def _without_body(self, data: bytes) -> bytes:
        """An answer to HEAD without the body that some servers send all the same."""
        head, blank_line, body = data.partition(b"\r\n\r\n")
        if not body or body.startswith(b"HTTP/"):  # after an interim answer
            return data
        self.force_close()
        return head + blank_line

    def resume_reading(self, resume_parser: bool = True) -> None:
        if self._reading_paused:
            super().resume_reading(resume_parser)

    # Leaving bytes in the socket

    def hold(self) -> None:
        """Read nothing for a while. Does nothing where a full buffer has stopped it already."""
        self._is_held = True
        self._pause_transport_reading()

    def go_on(self) -> None:
        """The end of `hold`; silence counts from here."""
        self._is_held = False
        self._heard_at = self._loop.time()
        if not self._reading_paused and not self._buffer_paused:
            self._resume_transport_reading()

    # Silence

    def _reschedule_timeout(self) -> None:
        timeout = self._read_timeout
        if not timeout:
            self._drop_timeout()
            return
        self._heard_at = self._loop.time()
        if self._read_timeout_handle is None:
            self._read_timeout_handle = self._loop.call_later(timeout, self._on_read_timeout)

    def _on_read_timeout(self) -> None:
        """The timer rings: not for what has been heard since it was set."""
        self._read_timeout_handle = None
        timeout = self._read_timeout or 0.0
        left = timeout if self._is_held else self._heard_at + timeout - self._loop.time()
        if left > 0:
            self._read_timeout_handle = self._loop.call_later(left, self._on_read_timeout)
        else:
            super()._on_read_timeout()
