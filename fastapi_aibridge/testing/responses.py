"""Replies as OpenAI's Responses: https://platform.openai.com/docs/api-reference/responses, .../responses-streaming."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import uuid4

import orjson

from .openai_errors import error_object
from .replies import Reply, ToolCall, Usage, argument_pieces, words

_INCOMPLETE = {"max_tokens": "max_output_tokens", "refusal": "content_filter"}
"""The stop reasons that leave a response incomplete, and their names in Responses."""


def blocking(reply: Reply, request: Mapping[str, Any]) -> bytes:
    """Return the `response` object: a reasoning item, a message and function calls, as far as the reply has them."""
    output: list[dict[str, Any]] = []
    if reply.thinking:
        output.append(_reasoning(f"rs_{uuid4().hex}", reply.thinking))
    if reply.text:
        output.append(_message(f"msg_{uuid4().hex}", reply))
    output += (_function_call(f"fc_{uuid4().hex}", call) for call in reply.tool_calls)
    return orjson.dumps(_ended(_started(request), reply, output))


def stream(reply: Reply, request: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield the events from `response.created` to `response.completed` or `response.incomplete`, numbered from 0."""
    return (
        b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps({**event, "sequence_number": number}))
        for number, event in enumerate(_events(reply, request))
    )


def _events(reply: Reply, request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    response = _started(request)
    yield {"type": "response.created", "response": response}
    yield {"type": "response.in_progress", "response": response}
    output: list[dict[str, Any]] = []
    if reply.thinking:
        item_id = f"rs_{uuid4().hex}"
        yield from _reasoning_events(item_id, reply.thinking, len(output))
        output.append(_reasoning(item_id, reply.thinking))
    if reply.text:
        item_id = f"msg_{uuid4().hex}"
        yield from _message_begins(item_id, reply.text, len(output))
    if reply.error is not None:
        known = error_object(500, reply.error)
        yield {"type": "error", "code": known["type"], "message": reply.error, "param": None}
    if reply.breaks_off:
        return
    if reply.text:
        message = _message(item_id, reply)
        yield from _message_ends(message, reply.text, len(output))
        output.append(message)
    for call in reply.tool_calls:
        item_id = f"fc_{uuid4().hex}"
        yield from _function_call_events(item_id, call, len(output))
        output.append(_function_call(item_id, call))
    response = _ended(response, reply, output)
    yield {"type": f"response.{response['status']}", "response": response}


def _reasoning_events(item_id: str, thinking: str, output_index: int) -> Iterator[dict[str, Any]]:
    at = {"item_id": item_id, "output_index": output_index, "summary_index": 0}
    start = "response.reasoning_summary"
    added = {"id": item_id, "type": "reasoning", "summary": []}
    yield {"type": "response.output_item.added", "output_index": output_index, "item": added}
    yield {"type": f"{start}_part.added", **at, "part": {"type": "summary_text", "text": ""}}
    for word in words(thinking):
        yield {"type": f"{start}_text.delta", **at, "delta": word}
    yield {"type": f"{start}_text.done", **at, "text": thinking}
    yield {"type": f"{start}_part.done", **at, "part": {"type": "summary_text", "text": thinking}}
    yield {"type": "response.output_item.done", "output_index": output_index, "item": _reasoning(item_id, thinking)}


def _message_begins(item_id: str, text: str, output_index: int) -> Iterator[dict[str, Any]]:
    at = {"item_id": item_id, "output_index": output_index, "content_index": 0}
    item = {"id": item_id, "type": "message", "status": "in_progress", "role": "assistant", "content": []}
    yield {"type": "response.output_item.added", "output_index": output_index, "item": item}
    yield {"type": "response.content_part.added", **at, "part": _output_text("")}
    for word in words(text):
        yield {"type": "response.output_text.delta", **at, "delta": word, "logprobs": []}


def _message_ends(message: Mapping[str, Any], text: str, output_index: int) -> Iterator[dict[str, Any]]:
    at = {"item_id": message["id"], "output_index": output_index, "content_index": 0}
    yield {"type": "response.output_text.done", **at, "text": text, "logprobs": []}
    yield {"type": "response.content_part.done", **at, "part": _output_text(text)}
    yield {"type": "response.output_item.done", "output_index": output_index, "item": message}


def _function_call_events(item_id: str, call: ToolCall, output_index: int) -> Iterator[dict[str, Any]]:
    at = {"item_id": item_id, "output_index": output_index}
    done = _function_call(item_id, call)
    added = {**done, "status": "in_progress", "arguments": ""}
    yield {"type": "response.output_item.added", "output_index": output_index, "item": added}
    for piece in argument_pieces(call.arguments_text):
        yield {"type": "response.function_call_arguments.delta", **at, "delta": piece}
    yield {"type": "response.function_call_arguments.done", **at, "arguments": call.arguments_text}
    yield {"type": "response.output_item.done", "output_index": output_index, "item": done}


def _started(request: Mapping[str, Any]) -> dict[str, Any]:
    """A response in progress, which repeats the parameters of its request."""
    asked: dict[str, Any] = {
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
        "metadata": {},
    }
    return {
        "id": f"resp_{uuid4().hex}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "background": False,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "model": request["model"],
        "output": [],
        **{name: default if request.get(name) is None else request[name] for name, default in asked.items()},
        "usage": None,
    }


def _ended(response: Mapping[str, Any], reply: Reply, output: list[dict[str, Any]]) -> dict[str, Any]:
    reason = _INCOMPLETE.get(reply.stopped_by)
    return {
        **response,
        "status": "incomplete" if reason else "completed",
        "completed_at": None if reason else int(time.time()),
        "incomplete_details": {"reason": reason} if reason else None,
        "output": output,
        "usage": _usage(reply.usage),
    }


def _reasoning(item_id: str, thinking: str) -> dict[str, Any]:
    summary = [{"type": "summary_text", "text": thinking}]
    return {"id": item_id, "type": "reasoning", "summary": summary, "encrypted_content": f"scripted-{item_id}"}


def _message(item_id: str, reply: Reply) -> dict[str, Any]:
    status = "incomplete" if reply.stopped_by in _INCOMPLETE else "completed"
    content = [_output_text(reply.text)]
    return {"id": item_id, "type": "message", "status": status, "role": "assistant", "content": content}


def _output_text(text: str) -> dict[str, Any]:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def _function_call(item_id: str, call: ToolCall) -> dict[str, Any]:
    return {
        "id": item_id,
        "type": "function_call",
        "status": "completed",
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments_text,
    }


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.all_input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.all_input_tokens + usage.output_tokens,
    }
