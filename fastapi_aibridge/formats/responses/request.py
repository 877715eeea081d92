"""Requests of Responses: what is read of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..lenient import objects, text
from ..request import ModelRequest, last_message, parse_object


def parse(body: bytes) -> ModelRequest:
    value = parse_object(body)
    request = ModelRequest(model=value["model"], streaming=value.get("stream") is True, body=body)
    request.takes_tools = fits(value)
    given = value.get("input")
    if isinstance(given, str):
        request.prompt = given
    else:
        last = last_message(given)
        if last.get("role") == "user":
            request.prompt = _prompt(last.get("content"))
        elif text(last.get("type")).endswith("_call_output"):
            request.correlating_tool_call_id = text(last.get("call_id")) or None
    return request


def _prompt(content: object) -> str | None:
    if isinstance(content, str):
        return content
    texts = [text(part.get("text")) for part in objects(content) if part.get("type") in ("input_text", "text")]
    return "\n".join(texts) if texts else None


def fits(request: Mapping[str, Any]) -> bool:
    """Whether tools can be injected: a response in the background is over here before it has begun."""
    return request.get("background") is not True
