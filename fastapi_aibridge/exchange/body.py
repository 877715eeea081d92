"""Reads and decodes a request's body within the limits."""

from __future__ import annotations

import asyncio

from starlette.types import Receive, Scope

from ..errors import GatewayError
from ..formats.large_text import BodyText, TextBuilder
from .body_budget import Holding
from .encoding import DecodedTooLarge, UnsupportedEncoding, decoding
from .fair_queue import Share
from .interruption import ClientGone, Interruption
from .steps import in_steps

SILENCE = 60.0
"""Seconds without a byte after which the request is refused."""
ARRIVAL = 900.0
"""Seconds after which the request is refused although bytes still arrive."""


async def read_body(
    scope: Scope, receive: Receive, limit: int, holding: Holding, interruption: Interruption
) -> BodyText:
    """Return the body as it was sent, counted in `holding`.

    Call it in a block of `interruption`, which raises `GatewayError` 408 if the body does not arrive. Raises
    `ClientGone`, and `GatewayError` 413 (at once if the length was announced) or 503 if there is no memory for it.
    """
    limit = min(limit, holding.limit)
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            # 19 digits are more than any limit, and `int` refuses more than 4,300.
            if len(value) > 18 or int(value) > limit:
                raise too_large(limit)
            holding.check(int(value))
    silence = _Silence(interruption)
    try:
        message = await receive()
        body: bytes = message.get("body", b"")
        if message["type"] == "http.request" and not message.get("more_body", False):
            if len(body) > limit:
                raise too_large(limit)
            holding.grow(len(body))
            return body
        builder = TextBuilder()
        while message["type"] == "http.request":
            piece = message.get("body", b"")
            if builder.size + len(piece) > limit:
                raise too_large(limit)
            holding.grow(len(piece))
            builder.add(piece)
            if not message.get("more_body", False):
                return builder.text()
            silence.broken()
            message = await receive()
    finally:
        silence.over()
    raise ClientGone


async def plain_body(scope: Scope, body: BodyText, limit: int, holding: Holding, share: Share) -> BodyText:
    """Return a request's body without the content encoding that its headers name. Raises as `decode_body` does."""
    encodings = [value for name, value in scope["headers"] if name == b"content-encoding"]
    if len(encodings) > 1:
        raise GatewayError(415, "unsupported_encoding", "a body that is encoded more than once is not supported")
    if not encodings or not encodings[0]:
        return body
    return await decode_body(body, encodings[0].decode("latin-1"), limit, holding, share)


async def decode_body(body: BodyText, encoding: str, limit: int, holding: Holding, share: Share) -> BodyText:
    """Return the body without its content encoding, counted in `holding` instead of the encoded one.

    Decodes in steps, so that other requests have their turn. Raises `GatewayError` 400, 413, 415 or 503.
    """
    limit = min(limit, holding.limit)
    encoded = holding.size
    try:
        decoded = await in_steps(decoding(body, encoding, limit, holding.grow), share)
    except UnsupportedEncoding as error:
        raise GatewayError(415, "unsupported_encoding", str(error)) from None
    except DecodedTooLarge:
        raise too_large(limit) from None
    except ValueError as error:
        raise GatewayError(400, "bad_encoding", str(error)) from None
    holding.shrink(encoded)
    return decoded


class _Silence:
    """Interrupts the reading of a body after `SILENCE` seconds without a byte, or `ARRIVAL` seconds in all."""

    __slots__ = ("_begun", "_heard", "_interruption", "_loop", "_timer")

    def __init__(self, interruption: Interruption) -> None:
        self._interruption = interruption
        self._loop = asyncio.get_running_loop()
        self._begun = self._heard = self._loop.time()
        # Most bodies are there already and have been read before the first look.
        self._timer: asyncio.Handle = self._loop.call_soon(self._look)

    def broken(self) -> None:
        """Note that bytes have come. No timer is set here, because bodies come in many pieces."""
        self._heard = self._loop.time()

    def over(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        wait = min(self._heard + SILENCE, self._begun + ARRIVAL) - now
        if wait > 0:
            self._timer = self._loop.call_later(wait, self._look)
        else:
            self._interruption.interrupt(_not_arrived())


def too_large(limit: int) -> GatewayError:
    return GatewayError(413, "request_too_large", f"the request body is larger than {limit} bytes")


def _not_arrived() -> GatewayError:
    return GatewayError(
        408,
        "request_timeout",
        f"the request body did not arrive: nothing came for {SILENCE:g} s, or it took longer than {ARRIVAL:g} s",
        headers={"connection": "close"},
    )
