"""A fake AI provider that answers from pre-built bytes, fast enough never to be what is measured.

`python -m benchmarks.upstream --port 9900` speaks OpenAI chat and responses and Anthropic messages, blocking and
streamed. `/v1/...` streams 20 text events at once; `/p20n50/v1/...` streams 50, 20 ms apart.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import uvloop

TEXT_EVENTS = 20
PACED = "/p10n50"
"""The prefix for benchmarks that need events one by one: 50 of them, 10 ms apart."""
MODEL = "gpt-5-2025-08-07"
CLAUDE = "claude-sonnet-4-5-20250929"
CREATED = 1763000000
ITEM = "msg_0benchmark0123456789abcdef0123456789abcdef"

_TARGET = re.compile(rb"(?:/p(?P<pace>\d+)n(?P<count>\d+))?(?P<route>/v1/(?:chat/completions|responses|messages))")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_STREAM = re.compile(rb'"stream" *: *true')
_USAGE = re.compile(rb'"include_usage" *: *true')


@dataclass(frozen=True, slots=True)
class Reply:
    """The bytes for one kind of request: the first are written at once, the others `pace` seconds apart."""

    first: bytes
    later: tuple[bytes, ...] = ()
    pace: float = 0.0


class Upstream(asyncio.Protocol):
    """A connection of a client that uses keep-alive but no pipelining."""

    def __init__(self, reply: Callable[[bytes, bool, bool], Reply]) -> None:
        self._reply = reply
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        if self._received:
            data = self._received + data
        self._received = data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(data, 0, end)
        if len(data) < end + 4 + (int(length[1]) if length else 0):
            return
        self._received = b""
        target = data[data.find(b" ") + 1 : data.find(b" HTTP/1.1")]
        stream = _STREAM.search(data, end) is not None
        reply = self._reply(target, stream, stream and _USAGE.search(data, end) is not None)
        self._transport.write(reply.first)
        if reply.later:
            loop = asyncio.get_running_loop()
            self._write_later(loop, reply, 0, loop.time() + reply.pace)

    def _write_later(self, loop: asyncio.AbstractEventLoop, reply: Reply, index: int, due: float) -> None:
        loop.call_at(due, self._write, loop, reply, index, due)

    def _write(self, loop: asyncio.AbstractEventLoop, reply: Reply, index: int, due: float) -> None:
        if self._transport.is_closing():
            return
        self._transport.write(reply.later[index])
        if index + 1 < len(reply.later):
            self._write_later(loop, reply, index + 1, due + reply.pace)


class Replies:
    """All replies, each built at its first request."""

    def __init__(self) -> None:
        self._built: dict[tuple[bytes, bool, bool], Reply] = {}

    def __call__(self, target: bytes, stream: bool, usage: bool) -> Reply:
        key = (target, stream, usage)
        reply = self._built.get(key)
        if reply is None:
            reply = self._built[key] = _build(*key)
        return reply


def _build(target: bytes, stream: bool, usage: bool) -> Reply:
    match = _TARGET.fullmatch(target)
    if match is None:
        return Reply(_blocking(b"404 Not Found", {"error": {"message": "no such route", "type": "not_found"}}))
    pace, count = int(match["pace"] or 0), int(match["count"] or TEXT_EVENTS)
    blocking, events = _ROUTES[match["route"]]
    if not stream:
        return Reply(_blocking(b"200 OK", blocking(count)))
    head = (
        b"HTTP/1.1 200 OK\r\ndate: Sun, 01 Nov 2026 12:00:00 GMT\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
        b"cache-control: no-cache\r\nx-request-id: req_0123456789abcdef\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    chunks = [b"%x\r\n%s\r\n" % (len(event), event) for event in events(count, usage)]
    if not pace:
        return Reply(head + b"".join(chunks) + b"0\r\n\r\n")
    return Reply(head + chunks[0], (*chunks[1:-1], chunks[-1] + b"0\r\n\r\n"), pace / 1000)


def _blocking(status: bytes, content: dict[str, Any]) -> bytes:
    body = json.dumps(content).encode()
    return (
        b"HTTP/1.1 %s\r\ndate: Sun, 01 Nov 2026 12:00:00 GMT\r\ncontent-type: application/json\r\n"
        b"x-request-id: req_0123456789abcdef\r\ncontent-length: %d\r\n\r\n%s" % (status, len(body), body)
    )


def _words(count: int) -> list[str]:
    return [f" word{number}" for number in range(count)]


def _event(content: dict[str, Any], *, named: bool = True) -> bytes:
    data = json.dumps(content, separators=(",", ":"))
    return (f"event: {content['type']}\ndata: {data}\n\n" if named else f"data: {data}\n\n").encode()


def _chat_usage(count: int) -> dict[str, Any]:
    return {
        "prompt_tokens": 11,
        "completion_tokens": count,
        "total_tokens": 11 + count,
        "prompt_tokens_details": {"cached_tokens": 3, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _chat(count: int) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(_words(count)),
        "refusal": None,
        "annotations": [],
    }
    return {
        "id": "chatcmpl-CbenchmarkBenchmark0123456789",
        "object": "chat.completion",
        "created": CREATED,
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": _chat_usage(count),
        "service_tier": "default",
        "system_fingerprint": None,
    }


def _chat_events(count: int, usage: bool) -> Iterator[bytes]:
    def chunk(choices: list[dict[str, Any]], **members: Any) -> bytes:
        content = {
            "id": "chatcmpl-CbenchmarkBenchmark0123456789",
            "object": "chat.completion.chunk",
            "created": CREATED,
            "model": MODEL,
            "service_tier": "default",
            "system_fingerprint": None,
            "choices": choices,
            **({"usage": None} if usage else {}),
            **members,
        }
        return _event(content, named=False)

    def choice(delta: dict[str, Any], finish: str | None = None) -> list[dict[str, Any]]:
        return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]

    yield chunk(choice({"role": "assistant", "content": "", "refusal": None}))
    for word in _words(count):
        yield chunk(choice({"content": word}))
    yield chunk(choice({}, "stop"))
    if usage:
        yield chunk([], usage=_chat_usage(count))
    yield b"data: [DONE]\n\n"


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def _item(status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": ITEM, "type": "message", "status": status, "content": content, "role": "assistant"}


def _response(count: int, status: str = "completed") -> dict[str, Any]:
    done = status == "completed"
    return {
        "id": "resp_0benchmark0123456789abcdef0123456789abcdef",
        "object": "response",
        "created_at": CREATED,
        "status": status,
        "error": None,
        "model": MODEL,
        "output": [_item("completed", [_part("".join(_words(count)))])] if done else [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": 11,
            "input_tokens_details": {"cached_tokens": 3},
            "output_tokens": count,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 11 + count,
        }
        if done
        else None,
        "metadata": {},
    }


def _response_events(count: int, _usage: bool) -> Iterator[bytes]:
    text = "".join(_words(count))
    place = {"item_id": ITEM, "output_index": 0, "content_index": 0}
    contents: list[dict[str, Any]] = [
        {"type": "response.created", "response": _response(count, "in_progress")},
        {"type": "response.in_progress", "response": _response(count, "in_progress")},
        {"type": "response.output_item.added", "output_index": 0, "item": _item("in_progress", [])},
        {"type": "response.content_part.added", **place, "part": _part("")},
        *(
            {"type": "response.output_text.delta", **place, "delta": word, "logprobs": [], "obfuscation": "0123456789"}
            for word in _words(count)
        ),
        {"type": "response.output_text.done", **place, "text": text, "logprobs": []},
        {"type": "response.content_part.done", **place, "part": _part(text)},
        {"type": "response.output_item.done", "output_index": 0, "item": _item("completed", [_part(text)])},
        {"type": "response.completed", "response": _response(count)},
    ]
    for number, content in enumerate(contents):
        yield _event({"type": content["type"], "sequence_number": number, **content})


def _message_usage(output: int) -> dict[str, Any]:
    return {
        "input_tokens": 11,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 3,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": output,
        "service_tier": "standard",
    }


def _message(count: int) -> dict[str, Any]:
    return {
        "id": "msg_01BenchmarkBenchmark012345",
        "type": "message",
        "role": "assistant",
        "model": CLAUDE,
        "content": [{"type": "text", "text": "".join(_words(count))}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": _message_usage(count),
    }


def _message_events(count: int, _usage: bool) -> Iterator[bytes]:
    opening = {**_message(0), "content": [], "stop_reason": None, "usage": _message_usage(1)}
    yield _event({"type": "message_start", "message": opening})
    yield _event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
    yield _event({"type": "ping"})
    for word in _words(count):
        yield _event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}})
    yield _event({"type": "content_block_stop", "index": 0})
    delta = {"stop_reason": "end_turn", "stop_sequence": None}
    yield _event({"type": "message_delta", "delta": delta, "usage": {"output_tokens": count}})
    yield _event({"type": "message_stop"})


_ROUTES: dict[bytes, tuple[Callable[[int], dict[str, Any]], Callable[[int, bool], Iterator[bytes]]]] = {
    b"/v1/chat/completions": (_chat, _chat_events),
    b"/v1/responses": (_response, _response_events),
    b"/v1/messages": (_message, _message_events),
}


async def serve(port: int) -> None:
    """Serve on 127.0.0.1 until cancelled."""
    replies = Replies()
    server = await asyncio.get_running_loop().create_server(lambda: Upstream(replies), "127.0.0.1", port, backlog=1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.upstream", description=__doc__)
    parser.add_argument("--port", type=int, default=9900)
    uvloop.run(serve(parser.parse_args().port))
