"""An upstream's response: how its body is read, and what the gateway has to say of how it was got."""

from __future__ import annotations

from collections.abc import Awaitable

import aiohttp

from ..errors import GatewayError
from .failures import FAILURES, meaning_of
from .protocol import Protocol

AHEAD = 4 * 2**20
"""Bytes of an answer that is no stream which are waited for before its relay begins."""

RawHeaders = tuple[tuple[bytes, bytes], ...]


class UpstreamResponse(aiohttp.ClientResponse):
    notes: RawHeaders = ()
    """Headers for the client, in lower case, that take the place of the upstream's of the same names."""
    streams: bool = False
    """Whether the body is a stream of events; known once it has been read ahead."""
    _ahead: bytes = b""
    """What has been read of the body and not been handed out."""
    _broken: GatewayError | None = None
    """What comes after that, where the body broke off."""

    async def read_ahead(self, *, stream_asked: bool) -> None:
        """Wait for the first bytes of a stream, or for the whole of another answer, up to `AHEAD` bytes of it.

        An answer that does not say what it is is taken for what was asked for.

        `read_some` begins with these bytes; what breaks off here can still be asked for again. Raises as it does.
        """
        kind = self.headers.get("content-type")
        is_stream = stream_asked if kind is None else kind[:17].lower() == "text/event-stream"
        self.streams = is_stream and self.status == 200
        pieces: list[bytes] = []
        room = AHEAD
        try:
            while room > 0 and (piece := await self.content.readany()):
                pieces.append(piece)
                room = 0 if self.streams else room - len(piece)
        except FAILURES as error:
            self._broken = meaning_of(error)
            self._broken.upstream_status = self.status
            rest = self.leftovers() if self.streams else b""
            if not rest:
                self.close()
                raise self._broken from error
            pieces = [rest]
        except BaseException:
            self.close()
            raise
        self._ahead = pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def read_some(self) -> bytes:
        """The next raw bytes of the body, empty at its end. Raises `UpstreamUnreachable` or `UpstreamTimeout`."""
        if self._ahead:
            ahead, self._ahead = self._ahead, b""
            return ahead
        if self._broken is not None:
            raise self._broken
        try:
            return await self.content.readany()
        except FAILURES as error:
            raise meaning_of(error) from error

    def leftovers(self) -> bytes:
        """What had arrived when the connection broke: aiohttp raises before it hands that out."""
        self.content.set_exception(None)  # type: ignore[arg-type]
        return self.content.read_nowait()

    async def hold(self, until: Awaitable[None]) -> None:
        """Wait, and leave what comes of the body in the socket meanwhile, at no cost but the sender's."""
        protocol = self.connection.protocol if self.connection is not None else None
        if not isinstance(protocol, Protocol):  # all of the body has come
            await until
            return
        protocol.hold()
        try:
            await until
        finally:
            protocol.go_on()
