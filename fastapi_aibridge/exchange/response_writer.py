"""The client's side of an exchange: what has been sent of the response, and what still can be."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable

from starlette.types import Message, Send

from ..errors import GatewayError
from ..formats.rounds import Rounds
from ..providers.provider import Provider
from .refusal import send_error

logger = logging.getLogger(__name__)

FAREWELL = 2.0
"""Seconds that a slow client has to take the error that ends its response."""
INTERCEPTION_ID = "x-aibridge-interception-id"
_INTERCEPTION_ID = INTERCEPTION_ID.encode()

BROKEN = "aibridge.broken"
"""Set in the last message of a stream that the gateway ends with an error event of its own. Servers pass over it; a
caller in process takes it for what it is, a response that broke off."""


class ResponseWriter:
    """One response. The head goes out with the first bytes of the body, so that until then an error has a status."""

    __slots__ = ("_added", "_head", "_interception_id", "_send", "begun", "streaming")

    def __init__(self, send: Send, interception_id: str) -> None:
        self._send = send
        self._interception_id = interception_id
        self._head: Message | None = None
        self._added: dict[str, str] = {}
        self.begun = False
        self.streaming = False
        """Whether the body is a stream of events, which an error event can end."""

    def add_headers(self, headers: dict[str, str]) -> None:
        """Headers, in lower case, that take the place of the upstream's of the same names."""
        self._added |= headers

    def prepare(self, status: int, headers: list[tuple[bytes, bytes]], *, streaming: bool = False) -> None:
        """What the response begins with. Has no effect once it has begun."""
        if not self.begun:
            if self._added:
                added = {name.encode(): value.encode() for name, value in self._added.items()}
                headers = [pair for pair in headers if pair[0].lower() not in added]
                headers += added.items()
            headers.append((_INTERCEPTION_ID, self._interception_id.encode()))
            self._head = {"type": "http.response.start", "status": status, "headers": headers}
            self.streaming = streaming

    def piece(self, body: bytes) -> Awaitable[None]:
        """Send some bytes of the body, not none."""
        message: Message = {"type": "http.response.body", "body": body, "more_body": True}
        return self._send(message) if self.begun else self._begin(message)

    def finish(self, body: bytes = b"") -> Awaitable[None]:
        """Send the last bytes of the body."""
        message: Message = {"type": "http.response.body", "body": body, "more_body": False}
        return self._send(message) if self.begun else self._begin(message)

    async def _begin(self, message: Message) -> None:
        assert self._head is not None  # noqa: S101 - for the type checker: whoever sends has prepared
        self.begun = True
        await self._send(self._head)
        await self._send(message)

    async def fail(
        self, provider: Provider, error: GatewayError, rounds: Rounds | None, *, failed: bool = False
    ) -> None:
        """Tell the client, as far as it can still be told. `failed` is that of `Rounds.error_events`."""
        try:
            async with asyncio.timeout(FAREWELL):
                if not self.begun:
                    headers = {INTERCEPTION_ID: self._interception_id, **self._added} if rounds else {}
                    await send_error(self._send, provider, error, headers)
                elif self.streaming and rounds is not None:
                    body = rounds.error_events(error, failed=failed)
                    await self._send({"type": "http.response.body", "body": body, "more_body": False, BROKEN: True})
        except (OSError, TimeoutError):
            logger.debug("interception %s: the client did not take the error", self._interception_id)
