"""Replies as OpenAI's Chat Completions: https://platform.openai.com/docs/api-reference/chat."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import uuid4

import orjson

from .openai_errors import error_object
from .replies import Reply, StopReason, ToolCall, Usage, argument_pieces, words

_FINISH_REASONS: Mapping[StopReason, str] = {
    "end": "stop",
    "tool_calls": "tool_calls",
    "max_tokens": "length",
    "refusal": "content_filter",
}


def blocking(reply: Reply, request: Mapping[str, Any]) -> bytes:
    """Return the `chat.completion` object."""
    message: dict[str, Any] = {"role": "assistant", "content": reply.text or None, "refusal": None, "annotations": []}
    if reply.tool_calls:
        message["tool_calls"] = [_tool_call(call, call.arguments_text) for call in reply.tool_calls]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _FINISH_REASONS[reply.stopped_by]}
    return orjson.dumps(_envelope("chat.completion", request) | {"choices": [choice], "usage": _usage(reply.usage)})


def stream(reply: Reply, request: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield the `chat.completion.chunk` events, with a usage chunk only if `stream_options` asks for one."""
    envelope = _envelope("chat.completion.chunk", request)
    wants_usage = bool((request.get("stream_options") or {}).get("include_usage"))
    # A client that asked for usage gets the member in every chunk, null until the last one.
    tail: dict[str, Any] = {"usage": None} if wants_usage else {}

    def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return _event(envelope | {"choices": [choice]} | tail)

    yield chunk({"role": "assistant", "content": "" if reply.text or not reply.tool_calls else None, "refusal": None})
    for word in words(reply.text):
        yield chunk({"content": word})
    if reply.error is not None:
        yield _event({"error": error_object(500, reply.error)})
    if reply.breaks_off:
        return
    for index, call in enumerate(reply.tool_calls):
        yield chunk({"tool_calls": [{"index": index} | _tool_call(call, "")]})
        for piece in argument_pieces(call.arguments_text):
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    yield chunk({}, _FINISH_REASONS[reply.stopped_by])
    if wants_usage:
        yield _event(envelope | {"choices": [], "usage": _usage(reply.usage)})
    yield b"data: [DONE]\n\n"


def _envelope(kind: str, request: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": request["model"],
        "service_tier": "default",
        "system_fingerprint": "fp_scripted",
    }


def _tool_call(call: ToolCall, arguments: str) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.all_input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.all_input_tokens + usage.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _event(data: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(data)
