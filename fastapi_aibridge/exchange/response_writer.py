"""Writes the client's response: its head, its body, or an error in the form that is still possible."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable

from starlette.types import Message, Send

from ..errors import GatewayError
from ..formats.rounds import Rounds
from ..providers.provider import Provider
from .error_response import send_error

logger = logging.getLogger(__name__)

PIECE = 64 * 1024
"""Bytes of a body that the server gets at once. Servers take each message whole, and only the next one has to wait for
a slow client.
"""
FAREWELL = 2.0
"""Seconds that a slow client has to take the error that ends its response."""
INTERCEPTION_ID = "x-aibridge-interception-id"
_INTERCEPTION_ID = INTERCEPTION_ID.encode()

BROKEN = "aibridge.broken"
"""Set in the last message of a stream that the gateway ends with its own error event. Servers ignore it; for a caller
in process it means that the response broke off."""


async def send_rest(send: Send, body: bytes) -> None:
    """Send the last bytes of a body, piece by piece, and return once the client has taken nearly all of them.

    Otherwise a client that reads nothing would leave them in the server's memory although its request is over, and
    counts nowhere any more.
    """
    for begin in range(0, len(body), PIECE):
        await send({"type": "http.response.body", "body": body[begin : begin + PIECE], "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


class ResponseWriter:
    """One response. The head is sent with the first bytes of the body, so that an error before them has a status."""

    __slots__ = ("_added", "_head", "_interception_id", "_send", "begun", "ending", "streaming")

    def __init__(self, send: Send, interception_id: str) -> None:
        self._send = send
        self._interception_id = interception_id
        self._head: Message | None = None
        self._added: dict[str, str] = {}
        self.begun = False
        self.ending = False
        """Whether the last bytes are being sent, after which nothing else can be sent."""
        self.streaming = False
        """Whether the body is an event stream, which an error event can end."""

    def add_headers(self, headers: dict[str, str]) -> None:
        """Add headers, in lower case, which replace the upstream's headers of the same names."""
        self._added |= headers

    def prepare(self, status: int, headers: list[tuple[bytes, bytes]], *, streaming: bool = False) -> None:
        """Set status and headers. Has no effect once the response has begun."""
        if not self.begun:
            if self._added:
                added = {name.encode(): value.encode() for name, value in self._added.items()}
                headers = [pair for pair in headers if pair[0].lower() not in added]
                headers += added.items()
            headers.append((_INTERCEPTION_ID, self._interception_id.encode()))
            self._head = {"type": "http.response.start", "status": status, "headers": headers}
            self.streaming = streaming

    def piece(self, body: bytes) -> Awaitable[None]:
        """Send some bytes of the body, which must not be empty."""
        message: Message = {"type": "http.response.body", "body": body, "more_body": True}
        return self._send(message) if self.begun else self._begin(message)

    def finish(self, body: bytes = b"") -> Awaitable[None]:
        """Send the last bytes of the body."""
        self.ending = True
        if len(body) > PIECE:
            return self._finish_slowly(body)
        message: Message = {"type": "http.response.body", "body": body, "more_body": False}
        return self._send(message) if self.begun else self._begin(message)

    async def _begin(self, message: Message) -> None:
        assert self._head is not None  # noqa: S101 - for the type checker: `prepare` comes first
        self.begun = True
        await self._send(self._head)
        await self._send(message)

    async def _finish_slowly(self, body: bytes) -> None:
        if not self.begun:
            await self.piece(body[:PIECE])
            body = body[PIECE:]
        await send_rest(self._send, body)

    async def fail(
        self, provider: Provider, error: GatewayError, rounds: Rounds | None, *, failed: bool = False
    ) -> None:
        """Send the error to the client, as a response or in its stream. `failed` is for `Rounds.error_events`."""
        try:
            async with asyncio.timeout(FAREWELL):
                if not self.begun:
                    headers = {INTERCEPTION_ID: self._interception_id, **self._added} if rounds else {}
                    await send_error(self._send, provider, error, headers)
                elif self.streaming and rounds is not None and not self.ending:
                    body = rounds.error_events(error, failed=failed)
                    await self._send({"type": "http.response.body", "body": body, "more_body": False, BROKEN: True})
        except (OSError, TimeoutError):
            logger.debug("interception %s: the client did not take the error", self._interception_id)
