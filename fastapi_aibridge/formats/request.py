"""An intercepted request, as far as the gateway has to understand it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from ..errors import GatewayError
from .lenient import objects, text


@dataclass(slots=True, kw_only=True)
class ModelRequest:
    """What is read of a request before it goes upstream."""

    model: str
    streaming: bool
    body: bytes
    """What goes upstream: the client's bytes, edited only where the format needs it."""
    prompt: str | None = None
    correlating_tool_call_id: str | None = None
    user_id: str | None = None
    """`metadata.user_id`, where clients hide their session."""
    takes_tools: bool = True
    """Whether tools can be injected into it."""
    usage_asked: bool = True
    """Whether the client itself asked a streamed chat for its usage."""


def parse_object(body: bytes) -> dict[str, Any]:
    """The request's JSON object, with a model and the stream flag checked. Raises `GatewayError`, 400."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise GatewayError(400, "invalid_json", f"the request body is not valid JSON: {error.msg}") from None
    if not isinstance(value, dict):
        raise GatewayError(400, "invalid_request", "the request body is not a JSON object")
    model = value.get("model")
    if not isinstance(model, str) or not model:
        raise GatewayError(400, "missing_model", "the request body names no model: 'model' must be a non-empty string")
    return value


def last_message(messages: object, *, passed_over: tuple[str, ...] = ()) -> dict[str, Any]:
    """Who spoke last, and what; empty if nobody did. Roles that are `passed_over` do not count."""
    if not isinstance(messages, list):
        return {}
    spoken = (one for one in reversed(messages) if not (isinstance(one, dict) and one.get("role") in passed_over))
    last = next(spoken, None)
    return last if isinstance(last, dict) else {}


def last_text(content: object, kinds: tuple[str, ...]) -> str | None:
    """The prompt in a message's content: the string itself, or its last text part."""
    if isinstance(content, str):
        return content
    texts = [text(part.get("text")) for part in objects(content) if part.get("type") in kinds]
    return texts[-1] if texts else None
