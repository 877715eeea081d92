"""Reads the reason of a provider's refusal: the beginning of its body, which can still be relayed."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from ..upstream.keys import MAX_REASON
from ..upstream.response import UpstreamResponse
from .encoding import DecodedTooLarge, UnsupportedEncoding, decode

_WITHIN = 2.0
"""Seconds to wait for the beginning of the body."""


async def reason_of(answer: UpstreamResponse) -> bytes:
    """Return the beginning of the body without its content encoding; empty if nothing comes in time."""
    body = b""
    with suppress(TimeoutError):
        async with asyncio.timeout(_WITHIN):
            body = await answer.peek(MAX_REASON)
    with suppress(ValueError, DecodedTooLarge, UnsupportedEncoding):
        body = decode(body, answer.headers.get("content-encoding", "identity"), MAX_REASON)
    return body
