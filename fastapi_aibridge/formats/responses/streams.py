"""Streams of Responses: tells which events matter, and ends broken streams."""

from __future__ import annotations

import re

import orjson

from ... import sse
from ...errors import GatewayError
from ..decoder import Decoder
from ..large_text import BodyText
from ..openai_errors import error_object
from ..single import SingleRound
from ..text import Budget
from .message import ResponseMessage

_TELLING = (b'"response"', b"response.output_item.done", b'"error"')
"""Marks of all events with something to record: the whole response, a finished item, an error. Deltas have nothing: the
finished item repeats them.
"""
NUMBERED = b'"sequence_number"'
_NUMBER = re.compile(rb'"sequence_number"\s{0,8}:\s{0,8}([0-9]{1,15})')


def single(body: BodyText, max_text: int, *, usage_asked: bool) -> SingleRound:  # noqa: ARG001 - every format's signature
    decoder = Decoder(ResponseMessage(Budget.of_record(max_text)), tells, numbered=NUMBERED)
    return SingleRound(body, decoder, error_events)


def tells(events: bytes) -> bool:
    """Whether anything in these events can matter to a record."""
    for mark in _TELLING:  # noqa: SIM110 - half as fast with any()
        if mark in events:
            return True
    return False


def error_events(error: GatewayError, decoder: Decoder, failed: bool) -> bytes:
    """Return the end of a broken stream, numbered from the last event on.

    OpenAI's SDKs raise on the `error` member, which OpenAI's own event does not have; Codex reads only
    `response.failed`, which comes second where `failed` asks for it.
    """
    numbers = [int(found) for found in _NUMBER.findall(decoder.last)]
    message = decoder.message
    begun = message.begun if isinstance(message, ResponseMessage) else {}
    return numbered_error_events(error, max(numbers, default=-1) + 1, begun, failed=failed)


def numbered_error_events(error: GatewayError, number: int, begun: dict[str, object], *, failed: bool) -> bytes:
    said = {"code": error.code, "message": error.message}
    event = {"type": "error", **said, "param": None, "error": error_object(error), "sequence_number": number}
    written = sse.event(orjson.dumps(event), "error")
    if not failed:
        return written
    response = {"object": "response", **begun, "status": "failed", "error": said, "incomplete_details": None}
    end = {
        "type": "response.failed",
        "response": {**response, "output": [], "usage": None},
        "sequence_number": number + 1,
    }
    return written + sse.event(orjson.dumps(end), "response.failed")
