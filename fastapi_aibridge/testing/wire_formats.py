"""The wire formats that the scripted provider speaks, and the path of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from . import chat_completions, messages, openai_errors, responses
from .replies import Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class WireFormat:
    """The functions that write replies in one wire format; they do no I/O."""

    blocking: Callable[[Reply, Mapping[str, Any]], bytes]
    stream: Callable[[Reply, Mapping[str, Any]], Iterator[bytes]]
    """Yields whole server-sent events, one per item."""
    error: Callable[[int, str], bytes]
    request_id_header: str
    required: tuple[str, ...]
    """Members without which the vendor refuses a request."""


CHAT_COMPLETIONS = WireFormat(
    blocking=chat_completions.blocking,
    stream=chat_completions.stream,
    error=openai_errors.body,
    request_id_header="x-request-id",
    required=("model", "messages"),
)
RESPONSES = WireFormat(
    blocking=responses.blocking,
    stream=responses.stream,
    error=openai_errors.body,
    request_id_header="x-request-id",
    required=("model",),
)
MESSAGES = WireFormat(
    blocking=messages.blocking,
    stream=messages.stream,
    error=messages.error,
    request_id_header="request-id",
    required=("model", "max_tokens", "messages"),
)

BY_PATH: Mapping[str, WireFormat] = {
    "/v1/chat/completions": CHAT_COMPLETIONS,
    "/v1/responses": RESPONSES,
    "/v1/messages": MESSAGES,
}
