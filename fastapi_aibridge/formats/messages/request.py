"""Requests of Messages: what is read of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..lenient import member, objects, text
from ..request import ModelRequest, last_message, last_text, parse_object


def parse(body: bytes) -> ModelRequest:
    value = parse_object(body)
    request = ModelRequest(model=value["model"], streaming=value.get("stream") is True, body=body)
    request.takes_tools = fits(value)
    request.user_id = text(member(value, "metadata").get("user_id")) or None
    # Claude Code puts system messages behind what the user said (beta `mid-conversation-system`).
    last = last_message(value.get("messages"), passed_over=("system",))
    if last.get("role") == "user":
        content = last.get("content")
        request.prompt = last_text(content, ("text",))
        results = [part for part in objects(content) if part.get("type") == "tool_result"]
        if results:
            request.correlating_tool_call_id = text(results[-1].get("tool_use_id")) or None
    return request


def fits(request: Mapping[str, Any]) -> bool:  # noqa: ARG001 - every format's signature
    """Whether tools can be injected into this request."""
    return True
