"""Replies as Anthropic's Messages: https://docs.anthropic.com/en/api/messages, .../messages-streaming, .../errors."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any
from uuid import uuid4

import orjson

from .replies import Reply, StopReason, Usage, argument_pieces, words

_STOP_REASONS: Mapping[StopReason, str] = {
    "end": "end_turn",
    "tool_calls": "tool_use",
    "max_tokens": "max_tokens",
    "refusal": "refusal",
}
_ERROR_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def blocking(reply: Reply, request: Mapping[str, Any]) -> bytes:
    """Return the `message` object."""
    content: list[dict[str, Any]] = []
    if reply.thinking:
        content.append({"type": "thinking", "thinking": reply.thinking, "signature": _signature(reply.thinking)})
    if reply.text:
        content.append({"type": "text", "text": reply.text})
    content += (
        {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments_object}
        for call in reply.tool_calls
    )
    end = {"content": content, "stop_reason": _STOP_REASONS[reply.stopped_by]}
    return orjson.dumps(_message(request) | end | {"usage": _start_usage(reply.usage) | _end_usage(reply.usage)})


def stream(reply: Reply, request: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield the events from `message_start` to `message_stop`; usage in `message_delta` is cumulative."""
    yield _event("message_start", message=_message(request) | {"usage": _start_usage(reply.usage)})
    yield _event("ping")
    index = 0
    if reply.thinking:
        yield _event("content_block_start", index=index, content_block=_block("thinking", thinking="", signature=""))
        for word in words(reply.thinking):
            yield _delta(index, "thinking_delta", thinking=word)
        yield _delta(index, "signature_delta", signature=_signature(reply.thinking))
        yield _event("content_block_stop", index=index)
        index += 1
    if reply.text:
        yield _event("content_block_start", index=index, content_block=_block("text", text=""))
        for word in words(reply.text):
            yield _delta(index, "text_delta", text=word)
    if reply.error is not None:
        yield _event("error", error={"type": _error_type(500), "message": reply.error})
    if reply.breaks_off:
        return
    if reply.text:
        yield _event("content_block_stop", index=index)
        index += 1
    for at, call in enumerate(reply.tool_calls, start=index):
        block = _block("tool_use", id=call.id, name=call.name, input={})
        yield _event("content_block_start", index=at, content_block=block)
        yield _delta(at, "input_json_delta", partial_json="")
        for piece in argument_pieces(call.arguments_text):
            yield _delta(at, "input_json_delta", partial_json=piece)
        yield _event("content_block_stop", index=at)
    end = {"stop_reason": _STOP_REASONS[reply.stopped_by], "stop_sequence": None}
    yield _event("message_delta", delta=end, usage=_end_usage(reply.usage))
    yield _event("message_stop")


def error(status: int, message: str) -> bytes:
    """Return the body of a refusal with this status."""
    shape = {"type": "error", "error": {"type": _error_type(status), "message": message}}
    return orjson.dumps(shape | {"request_id": f"req_{uuid4().hex[:24]}"})


def token_count(request: Mapping[str, Any]) -> bytes:
    """Return the response of `count_tokens`: each word that the model would read counts as one token."""
    texts = _texts([request.get(name) for name in ("system", "messages", "tools")])
    return orjson.dumps({"input_tokens": sum(1 for text in texts for _ in words(text))})


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        for name, member in value.items():
            if name not in ("type", "role", "id", "tool_use_id"):
                yield from _texts(member)


def _error_type(status: int) -> str:
    return _ERROR_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")


def _message(request: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": f"msg_{uuid4().hex[:24]}",
        "type": "message",
        "role": "assistant",
        "model": request["model"],
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _start_usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_tokens,
            "ephemeral_1h_input_tokens": 0,
        },
        # As the API does: the first token is counted before the rest is known.
        "output_tokens": min(1, usage.output_tokens),
        "service_tier": "standard",
    }


def _end_usage(usage: Usage) -> dict[str, Any]:
    known: dict[str, Any] = {
        "input_tokens": usage.input_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "output_tokens": usage.output_tokens,
    }
    if usage.reasoning_tokens:
        known["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    return known


def _signature(thinking: str) -> str:
    """A signature that is opaque, and the same for the same thinking, so that tests can see it come back unchanged."""
    return b64encode(sha256(thinking.encode()).digest()).decode()


def _block(kind: str, **members: object) -> dict[str, object]:
    return {"type": kind, **members}


def _delta(index: int, kind: str, **members: object) -> bytes:
    return _event("content_block_delta", index=index, delta=_block(kind, **members))


def _event(kind: str, **members: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps({"type": kind, **members}))
