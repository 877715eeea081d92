"""Small requests and responses of the three formats."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


def sse(data: Any, event: str | None = None) -> bytes:
    text = data if isinstance(data, str) else json.dumps(data)
    return (f"event: {event}\n" if event else "").encode() + f"data: {text}\n\n".encode()


@dataclass(frozen=True, slots=True)
class Wire:
    """One format: its path, a request and the responses to it."""

    name: str
    provider: str
    path: str
    events: tuple[bytes, ...]
    """The events of a whole stream."""
    blocking: bytes
    _request: tuple[tuple[str, Any], ...]

    @property
    def target(self) -> str:
        return f"/ai/{self.provider}{self.path}"

    def ask(self, *, stream: bool = False, model: str = "m-1") -> bytes:
        return json.dumps({"model": model, **dict(self._request), **({"stream": True} if stream else {})}).encode()

    def is_error(self, body: bytes) -> bool:
        """Whether this is an error response in the provider's shape."""
        value = json.loads(body)
        error = value.get("error", {})
        if self.provider == "anthropic":
            return bool(value["type"] == "error" and set(error) == {"type", "message"})
        return set(value) == {"error"} and {"message", "type", "code"} <= set(error)

    def is_error_event(self, event: bytes) -> bool:
        """Whether this is one whole error event in the provider's shape, as clients other than Codex get it."""
        if not event.endswith(b"\n\n") or event.count(b"\n\n") != 1:
            return False
        data = json.loads(event.split(b"data: ")[1])
        if self.name == "chat":
            return bool(data["error"]["message"])
        if self.name == "messages":
            return event.startswith(b"event: error\n") and bool(data["type"] == "error" and data["error"]["message"])
        return event.startswith(b"event: error\n") and bool(data["type"] == "error")


def _chat(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return sse({"id": "chat-1", "object": "chat.completion.chunk", "model": "m-1", "choices": [choice]})


CHAT = Wire(
    "chat",
    "openai",
    "/v1/chat/completions",
    (
        _chat({"role": "assistant", "content": ""}),
        _chat({"content": "one"}),
        _chat({"content": " two"}),
        _chat({}, "stop"),
        sse("[DONE]"),
    ),
    json.dumps(
        {
            "id": "chat-1",
            "object": "chat.completion",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "one two"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10},
        },
        indent=1,
    ).encode(),
    (("messages", [{"role": "user", "content": "say it"}]),),
)

RESPONSES = Wire(
    "responses",
    "openai",
    "/v1/responses",
    (
        sse(
            {"type": "response.created", "sequence_number": 0, "response": {"id": "resp-1", "status": "in_progress"}},
            "response.created",
        ),
        sse(
            {"type": "response.output_text.delta", "sequence_number": 1, "output_index": 0, "delta": "one"},
            "response.output_text.delta",
        ),
        sse(
            {"type": "response.output_text.delta", "sequence_number": 2, "output_index": 0, "delta": " two"},
            "response.output_text.delta",
        ),
        sse(
            {
                "type": "response.completed",
                "sequence_number": 3,
                "response": {
                    "id": "resp-1",
                    "status": "completed",
                    "output": [],
                    "usage": {"input_tokens": 8, "output_tokens": 2, "total_tokens": 10},
                },
            },
            "response.completed",
        ),
    ),
    json.dumps(
        {
            "id": "resp-1",
            "object": "response",
            "status": "completed",
            "output": [],
            "usage": {"input_tokens": 8, "output_tokens": 2, "total_tokens": 10},
        },
        indent=1,
    ).encode(),
    (("input", "say it"),),
)


def _delta(text: str) -> bytes:
    delta = {"type": "text_delta", "text": text}
    return sse({"type": "content_block_delta", "index": 0, "delta": delta}, "content_block_delta")


MESSAGES = Wire(
    "messages",
    "anthropic",
    "/v1/messages",
    (
        sse(
            {"type": "message_start", "message": {"id": "msg-1", "usage": {"input_tokens": 8, "output_tokens": 1}}},
            "message_start",
        ),
        sse({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        _delta("one"),
        _delta(" two"),
        sse({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}),
        sse({"type": "message_stop"}, "message_stop"),
    ),
    json.dumps(
        {
            "id": "msg-1",
            "type": "message",
            "role": "assistant",
            "content": [{"type": "text", "text": "one two"}],
            "stop_reason": "end_turn",
            "usage": {"input_tokens": 8, "output_tokens": 2},
        },
        indent=1,
    ).encode(),
    (("max_tokens", 10), ("messages", [{"role": "user", "content": "say it"}])),
)

WIRES = (CHAT, RESPONSES, MESSAGES)
