"""Requests of Chat Completions: what is read of them, and the one member that the gateway adds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..lenient import count, member, text
from ..request import ModelRequest, last_message, last_text, parse_object
from ..splice import add_member, find_member, set_member


def parse(body: bytes) -> ModelRequest:
    value = parse_object(body)
    streaming = value.get("stream") is True
    request = ModelRequest(model=value["model"], streaming=streaming, body=body)
    request.takes_tools = fits(value)
    last = last_message(value.get("messages"))
    if last.get("role") == "user":
        request.prompt = last_text(last.get("content"), ("text",))
    elif last.get("role") == "tool":
        request.correlating_tool_call_id = text(last.get("tool_call_id")) or None
    if streaming and member(value, "stream_options").get("include_usage") is not True:
        request.usage_asked = False
        request.body = _asking_for_usage(body, given="stream_options" in value)
    return request


def fits(request: Mapping[str, Any]) -> bool:
    """Whether tools can be injected: several choices cannot go round together, and the others exclude `tools`."""
    excluding = ("functions", "prediction", "web_search_options")
    return count(request.get("n")) <= 1 and not any(request.get(name) for name in excluding)


def _asking_for_usage(body: bytes, *, given: bool) -> bytes:
    options = find_member(body, "stream_options") if given else None
    if options is None:
        return add_member(body, "stream_options", b'{"include_usage":true}')
    old = body[options[0] : options[1]]
    new = set_member(old, "include_usage", b"true") if old.startswith(b"{") else b'{"include_usage":true}'
    return body[: options[0]] + new + body[options[1] :]
