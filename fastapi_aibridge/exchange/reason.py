"""Why a provider refuses: the beginning of its answer, which can be relayed all the same."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from ..upstream.keys import MAX_REASON
from ..upstream.response import UpstreamResponse
from .encoding import DecodedTooLarge, UnsupportedEncoding, decode

_WITHIN = 2.0
"""Seconds that it is waited for."""


async def reason_of(answer: UpstreamResponse) -> bytes:
    """Decoded; empty where nothing comes in time."""
    body = b""
    with suppress(TimeoutError):
        async with asyncio.timeout(_WITHIN):
            body = await answer.peek(MAX_REASON)
    with suppress(ValueError, DecodedTooLarge, UnsupportedEncoding):
        body = decode(body, answer.headers.get("content-encoding", "identity"), MAX_REASON)
    return body
