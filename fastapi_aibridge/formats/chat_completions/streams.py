"""Streams of Chat Completions: tells which events matter, and ends broken streams."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from ... import sse
from ...errors import GatewayError
from ..decoder import Decoder
from ..large_text import BodyText
from ..lenient import member
from ..openai_errors import error_object
from ..single import SingleRound
from ..text import Budget
from .message import ChatMessage

_MARKS = (b'"tool_calls"', b'"error"', b'"function_call"', b"[DONE]")
_OFTEN_NULL = (
    (b'"finish_reason"', b'"finish_reason":null', b'"finish_reason": null'),
    (b'"usage"', b'"usage":null', b'"usage": null'),
)


def single(body: BodyText, max_text: int, *, usage_asked: bool) -> SingleRound:
    decoder = Decoder(ChatMessage(Budget.of_record(max_text)), tells)
    return SingleRound(body, decoder, error_events, None if usage_asked else is_usage_only)


def tells(events: bytes) -> bool:
    """Whether anything in these events can matter to a record."""
    for mark in _MARKS:
        if mark in events:
            return True
    for name, null, spaced in _OFTEN_NULL:
        there = events.count(name)
        if there and there != events.count(null) and there != events.count(null) + events.count(spaced):
            return True
    return False


def is_usage_only(chunk: Mapping[str, Any]) -> bool:
    """Whether this chunk is sent only to clients that ask for usage."""
    return chunk.get("choices") == [] and bool(member(chunk, "usage"))


def error_events(error: GatewayError, decoder: Decoder, failed: bool) -> bytes:  # noqa: ARG001 - every format's signature
    """Return the end of a broken stream. OpenAI's SDKs raise on an event that has an `error`."""
    return sse.event(orjson.dumps({"error": error_object(error)}))
