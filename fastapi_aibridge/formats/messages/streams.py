"""Streams of Anthropic's API: tells which events matter, and ends broken streams."""

from __future__ import annotations

import orjson

from ... import sse
from ...errors import GatewayError
from ..anthropic_errors import error_body
from ..decoder import Decoder
from ..large_text import BodyText
from ..single import SingleRound
from ..text import Budget
from .message import AnthropicMessage

_TELLING = (
    b'"message_start"',
    b'"content_block_start"',
    b'"input_json_delta"',
    b'"thinking_delta"',
    b'"message_delta"',
    b'"message_stop"',
    b'"error"',
)
"""Event and delta types with something to record. Most bytes of most streams are text deltas, which have nothing."""


def single(body: BodyText, max_text: int, *, usage_asked: bool) -> SingleRound:  # noqa: ARG001 - every format's signature
    return SingleRound(body, Decoder(AnthropicMessage(Budget.of_record(max_text)), tells), error_events)


def tells(events: bytes) -> bool:
    """Whether anything in these events can matter to a record."""
    for mark in _TELLING:  # noqa: SIM110 - half as fast with any()
        if mark in events:
            return True
    return False


def error_events(error: GatewayError, decoder: Decoder, failed: bool) -> bytes:  # noqa: ARG001 - every format's signature
    """Return the end of a broken stream. Anthropic's SDKs raise on an `error` event."""
    return sse.event(orjson.dumps(error_body(error)), "error")
