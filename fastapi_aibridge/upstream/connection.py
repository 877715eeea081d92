"""One connection to an upstream: writes requests, and reads the response to each. It knows no pools and no retries."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import httptools

from .failures import BROKEN_OFF, SILENT, Failure, refused
from .message import (
    HEAD_LIMIT,
    LINE_LIMIT,
    MAX_HEADERS,
    STATUS_LINE,
    RequestBody,
    RequestHeaders,
    may_become_head,
    request_head,
)
from .origin import TimeLimits
from .response import ResponseHeaders, UpstreamResponse

PIECE = 256 * 1024
"""Bytes of a request's body that are written at once."""
TOGETHER = 64 * 1024
"""Bytes of a body that are written together with the head: copying them costs less than another system call."""
TRAILER_LIMIT = 64 * 1024
"""Bytes that may come between two pieces of a body, and after the last: chunk extensions and trailers."""

_NO_BODY = (204, 304)


class NotHTTP(ValueError):
    """The received bytes are not an HTTP response."""


class _Unasked(Exception):
    """The upstream sends more after the end of its response."""


class Connection(asyncio.Protocol):
    """A connection with at most one request at a time.

    It is free again after a complete response, if both sides keep it open.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.on_free: Callable[[Connection], None] | None = None
        """Called when the connection can take another request, and when it is lost: see `is_open`."""
        self.is_open = True
        self.free_since = 0.0
        self.made_at = loop.time()
        self._transport: asyncio.Transport | None = None
        # The request
        self._method = ""
        self._unsent: memoryview | None = None
        self._limits = TimeLimits()
        # The response
        self._response: UpstreamResponse | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._partial = bytearray()  # an incomplete head
        self._head_size = 0
        self._in_body = False
        self._done = False
        self._reusable = False
        self._without_body = 0  # bytes since the last piece of the body
        # Time and backpressure
        self._heard_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._is_paused = False
        self._is_held = False

    # Requests

    def send(
        self,
        method: str,
        target: bytes,
        authority: bytes,
        headers: RequestHeaders,
        body: RequestBody,
        limits: TimeLimits,
    ) -> UpstreamResponse:
        """Begin an exchange.

        Raises `GatewayError`, 400, for a header that cannot be sent, before anything is written.
        """
        transport = self._transport
        assert transport is not None  # noqa: S101 - for the type checker: the pool gives out open connections
        if len(body) <= TOGETHER:
            transport.write(request_head(method, target, authority, headers, len(body)) + body[:])
        else:
            transport.write(request_head(method, target, authority, headers, len(body)))
            self._unsent = memoryview(body)
        response = self._response = UpstreamResponse(self)
        self._method = method
        self._limits = limits
        if self._parser is None:
            self._parser = self._new_parser()
        self._headers = []
        self._head_size = 0
        self._in_body = self._done = False
        self._heard_at = self.loop.time()
        self._watch()
        if self._unsent is not None:
            self.resume_writing()
        return response

    def resume_writing(self) -> None:
        """Write the next piece of a large body. The transport calls this too, when it has nothing left to write."""
        unsent, transport = self._unsent, self._transport
        if unsent is None or transport is None or transport.is_closing():
            return
        self._heard_at = self.loop.time()  # an upstream that reads is not silent
        transport.write(unsent[:PIECE])
        self._unsent = unsent[PIECE:] if len(unsent) > PIECE else None
        if self._unsent is not None and not transport.get_write_buffer_size():
            self.loop.call_soon(self.resume_writing)  # others may run in between

    # Called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=0)  # so that it calls `resume_writing` after each piece

    def data_received(self, data: bytes) -> None:
        response = self._response
        if response is None:  # no request is pending
            self.close()
            return
        self._heard_at = self.loop.time()
        response.heard = True
        try:
            if not self._in_body:
                data = self._read_heads(data)
            if data and not self._done:
                self._without_body += len(data)
                self._parser.feed_data(data)  # type: ignore[union-attr] # there while there is a response
                if self._without_body > TRAILER_LIMIT and not self._done:
                    raise ValueError("its trailers or chunk extensions are too large")
            elif data:
                self._reusable = False
        except httptools.HttpParserError as error:
            if not self._done:
                self._fail(refused(_reason(error), answered=not self._in_body))
                return
            self._reusable = False  # the response is complete, and data follows that was not asked for
        except NotHTTP as error:
            self._fail(refused(str(error)))
            return
        except ValueError as error:
            self._fail(refused(str(error), answered=not self._in_body))
            return
        if self._done:
            self._finish(response)
        elif self._in_body and (response.wanted == 1 or response.size >= response.wanted):
            response.wake()
            if response.size > response.limit and not self._is_paused:
                self._is_paused = True
                self._pause()

    def eof_received(self) -> None:
        """Close an idle connection whose upstream writes no more, so that it is not used again before it is lost."""
        if self._response is None:
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        response = self._response
        if response is not None:
            self._response = None
            whole = error is None and self._in_body and _ends_with_the_connection(response)
            response.end(None if whole else BROKEN_OFF)
        self._let_go()
        on_free, self.on_free = self.on_free, None
        if on_free is not None:
            on_free(self)

    def _let_go(self) -> None:
        """Drop the references that form cycles with this object, so that nothing is left to the garbage collector."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._parser = None
        self._unsent = None
        self._transport = None

    # Responses

    def _read_heads(self, data: bytes) -> bytes:
        """Read the head of the response, and those of interim ones before it; return the bytes that follow.

        Heads are collected here, because the parser would put header values together piece by piece.
        """
        while True:
            if self._partial:
                searched = max(0, len(self._partial) - 3)
                self._partial += data
                end = self._partial.find(b"\r\n\r\n", searched) + 4
            else:
                end = data.find(b"\r\n\r\n") + 4
            if end == 3:
                self._keep_partial(data)
                return b""
            if self._partial:
                data = bytes(self._partial)
                self._partial.clear()
            head, data = (data[:end], data[end:]) if end < len(data) else (data, b"")
            self._head_size += end
            if not STATUS_LINE.match(head, 0, LINE_LIMIT):
                raise NotHTTP("it does not begin as HTTP does")
            if self._head_size > HEAD_LIMIT:
                raise ValueError("its head is too large")
            self._parser.feed_data(head)  # type: ignore[union-attr] # there while there is a response
            if self._in_body:
                if not self._done and (self._method == "HEAD" or self._response.status in _NO_BODY):  # type: ignore[union-attr]
                    self._done = True
                    self._reusable = self._parser.should_keep_alive()  # type: ignore[union-attr]
                    self._parser = None  # it would wait for a body
                return data
            self._parser = self._new_parser()  # an interim response may say that it is the last on this connection
            if not data:
                return b""

    def _new_parser(self) -> httptools.HttpResponseParser:
        parser = httptools.HttpResponseParser(self)
        # Some servers pad chunk sizes with spaces, and all HTTP clients tolerate it.
        parser.set_dangerous_leniencies(lenient_spaces_after_chunk_size=True)
        return parser

    def _keep_partial(self, data: bytes) -> None:
        partial = self._partial
        if not partial:
            partial += data
        if not may_become_head(partial):
            raise NotHTTP("it does not begin as HTTP does")
        if self._head_size + len(partial) > HEAD_LIMIT:
            raise ValueError("its head is too large")

    # Called by the parser

    def on_message_begin(self) -> None:
        if self._done:
            raise _Unasked

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_body:  # else it is a trailer
            self._headers.append((name.lower(), value.rstrip()))
            if len(self._headers) > MAX_HEADERS:
                raise ValueError("it has too many headers")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()  # type: ignore[union-attr] # the parser calls this
        raw, self._headers = self._headers, []
        if status < 200:
            if status == 101:
                raise ValueError("it changes the protocol")
            return
        if status > 599:
            raise ValueError(f"its status is {status}")
        headers = ResponseHeaders(raw)
        coding = headers.raw(b"transfer-encoding")
        self._reusable = True
        if coding is not None:
            codings = [value for name, value in raw if name == b"transfer-encoding"]
            if len(codings) > 1 or coding.strip().lower() != b"chunked":
                raise ValueError("its transfer encoding was not asked for")
            self._reusable = self._parser.get_http_version() == "1.1"  # type: ignore[union-attr]
        self._in_body = True
        self._without_body = 0
        self._response.begin(status, raw, headers)  # type: ignore[union-attr] # there while there is a response
        self._watch()

    def on_body(self, piece: bytes) -> None:
        self._without_body = 0
        self._response.feed(piece)  # type: ignore[union-attr] # there while there is a response

    def on_message_complete(self) -> None:
        if self._in_body:
            self._done = True
            self._reusable = self._reusable and self._parser.should_keep_alive()  # type: ignore[union-attr]

    # End of an exchange

    def _finish(self, response: UpstreamResponse) -> None:
        """End a complete response, and free the connection or close it."""
        self._response = None
        response.end()
        transport = self._transport
        if not self._reusable or self._unsent is not None or transport is None or transport.get_write_buffer_size():
            self.close()
            return
        if self._is_paused or self._is_held:
            self._is_paused = self._is_held = False
            transport.resume_reading()
        self.free()

    def free(self) -> None:
        """Report that the connection can take another request, whether or not it has carried one."""
        self.free_since = self.loop.time()
        if self.on_free is not None:
            self.on_free(self)

    def _fail(self, failure: Failure) -> None:
        response, self._response = self._response, None
        if response is not None:
            response.end(failure)
        self.close()

    def close(self) -> None:
        """Close at once: unwritten bytes are dropped, and an incomplete response is broken off."""
        self.is_open = False
        response, self._response = self._response, None
        if response is not None:
            response.end(BROKEN_OFF)
        transport = self._transport
        self._let_go()
        if transport is not None:
            transport.abort()

    # Backpressure: bytes that are left in the socket

    def has_room(self) -> None:
        """Resume reading after a full buffer, which the reader has emptied."""
        if self._is_paused:
            self._is_paused = False
            self._go_on()

    def hold(self) -> None:
        """Pause reading until `go_on`, whether or not a full buffer has paused it already."""
        self._is_held = True
        if not self._is_paused:
            self._pause()

    def go_on(self) -> None:
        """End `hold`."""
        self._is_held = False
        if not self._is_paused:
            self._go_on()

    def _pause(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def _go_on(self) -> None:
        """Resume reading, unless `hold` still forbids it; silence is counted from here."""
        self._heard_at = self.loop.time()
        if not self._is_held and self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    # Silence

    def _allowed(self) -> float | None:
        return self._limits.silence if self._in_body else self._limits.first_byte

    def _watch(self) -> None:
        """Have a timer that fires no later than the allowed silence ends.

        One that fires earlier is kept, so that a busy connection sets one for each time of allowed silence, not one for
        each request or piece.
        """
        allowed = self._allowed()
        if allowed is None:
            return
        due = self._heard_at + allowed
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = self.loop.call_at(due, self._on_timer)

    def _on_timer(self) -> None:
        """Fail the exchange if the silence has lasted too long, else set the timer again."""
        self._timer = None
        allowed = self._allowed()
        if self._response is None or allowed is None:
            return
        now = self.loop.time()
        if self._is_paused or self._is_held:
            self._heard_at = now
        if self._heard_at + allowed > now:
            self._watch()
        else:
            self._fail(SILENT)


def _reason(error: httptools.HttpParserError) -> str:
    """Return the parser's reason for a failure, or the gateway's own if a callback raised."""
    cause = error.__context__
    return str(cause) if isinstance(cause, ValueError) else str(error).lower()


def _ends_with_the_connection(response: UpstreamResponse) -> bool:
    """Whether only the end of the connection ends the body (RFC 9112, section 6.3)."""
    return response.headers.raw(b"content-length") is None and response.headers.raw(b"transfer-encoding") is None
