"""All readers of text that a client, an upstream or a tool server wrote, with the worst shapes of such text.

An addition to `FORMATS` is measured automatically; other readers are added to `works`.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import zstandard

from fastapi_aibridge import GatewayError, sse
from fastapi_aibridge.exchange.client import client_of
from fastapi_aibridge.exchange.encoding import Inflater, decode, decoding
from fastapi_aibridge.formats import chat_completions, edits, messages, responses
from fastapi_aibridge.formats.format import Format
from fastapi_aibridge.formats.large_text import LARGE, Steps
from fastapi_aibridge.formats.members import CHECKED
from fastapi_aibridge.formats.prompts import split
from fastapi_aibridge.formats.request import ModelRequest
from fastapi_aibridge.formats.rounds import Held, Rounds, extended, with_tools
from fastapi_aibridge.formats.scanner import finish
from fastapi_aibridge.formats.splice import find_member, set_member
from tests.formats.at_once import add_member, elements, list_member

FORMATS: list[Format] = [chat_completions, messages, responses]


@dataclass(frozen=True, slots=True)
class Work:
    """A reader to measure: `do` reads the text that `shape` makes in about the given size."""

    name: str
    shape: Callable[[int], Any]
    do: Callable[[Any], object]
    smallest: int = 16 * 1024
    """Bytes of the smallest text; the reader may treat smaller ones in another way."""
    largest: int = 512 * 1024
    """The most bytes of the smaller size that is compared; it doubles until the work takes long enough to measure."""


def repeated(piece: bytes, before: bytes = b"", after: bytes = b"") -> Callable[[int], bytes]:
    return lambda size: before + piece * max(1, size // len(piece)) + after


# JSON texts

_LIST = b'{"model":"m","%b":['
VALUES = {
    "zeros": b"0,",
    "objects": b"{},",
    "lists": b"[],",
    "empty strings": b'"",',
    "small objects": b'{"a":1},',
    "nested": b'{"a":[{"b":[[[]]]}]},',
    "deep": b"[" * 200 + b"]" * 200 + b",",
    "floats": b"-1.5e3,",
    "white space": b"\n\t ",
    "messages": b'{"role":"user","content":"a"},',
    "parts": b'{"role":"user","content":[{"type":"text","text":"."}]},',
    "answers": b'{"role":"assistant","content":"x, y: {z}"},',
    "escaped keys": b'{"\\u0061":"\\"","b":"\\\\"},',
}
STRINGS = {
    "letters": b"abcd",
    "escapes": b"\\n",
    "quotes": b'\\"',
    "backslashes": b"\\\\",
    "code points": b"\\u00e4",
    "surrogate pairs": b"\\ud83d\\ude00",
    "umlauts": "\u00e4".encode(),
    "tags": b"<system-reminder>",
    "closed tags": b"<feedback></feedback>",
    "angle brackets": b"<",
    "half tags": b"<environment_",
    "headings": b"# AGENTS.md instructions for ",
}


def bodies(name: str) -> Iterator[tuple[str, Callable[[int], bytes]]]:
    """Yield kinds of request bodies, each filled with one repeated piece."""
    for kind, piece in VALUES.items():
        yield kind, repeated(piece, b'{"model":"m","' + name.encode() + b'":[', b"0]}")
        yield f"{kind} elsewhere", repeated(piece, b'{"model":"m","x":[', b"0]}")
    for kind, piece in STRINGS.items():
        yield kind, repeated(piece, b'{"model":"m","' + name.encode() + b'":[{"role":"user","content":"', b'"}]}')
        yield f"{kind} elsewhere", repeated(piece, b'{"model":"m","x":"', b'"}')
    yield "members", lambda size: b'{"model":"m",' + b",".join(b'"%d":1' % one for one in range(size // 12)) + b"}"
    yield "long name", repeated(b"a", b'{"model":"m","', b'":1}')
    yield "open strings", repeated(b'["', b'{"model":"m","x":', b"")
    yield "open lists", repeated(b"[", b'{"model":"m","x":', b"")
    yield "open objects", repeated(b'{"a":', b'{"model":"m","x":', b"")
    yield "model", repeated(b"m", b'{"model":"', b'"}')
    yield "user id", repeated(b"_session_", b'{"model":"m","metadata":{"user_id":"', b'"}}')


def read_all(format_: Format, body: bytes) -> None:
    for _ in steps_of(format_, body):
        pass


def steps_of(format_: Format, body: bytes) -> Iterator[None]:
    """Yield after each step of reading a request; a refusal ends the steps."""
    steps: Steps[ModelRequest] = format_.read(body, 1024 * 1024)
    while True:
        try:
            next(steps)
        except (StopIteration, GatewayError):
            return
        yield


def unpacking(encoded: bytes, encoding: str) -> Iterator[None]:
    yield from decoding(encoded, encoding, 2**40)


# Streams

_CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": "x"}}
EVENTS: dict[str, dict[str, Any]] = {
    "chat_completions": {
        "text": {"id": "c", "choices": [{"index": 0, "delta": {"content": "x"}}]},
        "text with nulls": {"id": "c", "choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": None}]},
        "usage null": {"id": "c", "choices": [{"index": 0, "delta": {"content": "x"}}], "usage": None},
        "calls": {"id": "c", "choices": [{"index": 0, "delta": {"tool_calls": [_CALL]}}]},
        "many choices": {"id": "c", "choices": [{"index": one, "delta": {"content": "x"}} for one in range(50)]},
        "usage": {"id": "c", "choices": [], "usage": {"prompt_tokens": 1}},
        "errors": {"error": {"message": "x"}},
    },
    "messages": {
        "text": {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}},
        "thinking": {"type": "content_block_delta", "index": 1, "delta": {"type": "thinking_delta", "thinking": "x"}},
        "arguments": {
            "type": "content_block_delta",
            "index": 2,
            "delta": {"type": "input_json_delta", "partial_json": "x"},
        },
        "starts": {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": "t"}},
        "usage": {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 1}},
        "errors": {"type": "error", "error": {"message": "x"}},
    },
    "responses": {
        "text": {"type": "response.output_text.delta", "sequence_number": 5, "delta": "x"},
        "items": {
            "type": "response.output_item.done",
            "output_index": 0,
            "item": {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        },
        "progress": {"type": "response.in_progress", "response": {"id": "r", "usage": None}},
        "errors": {"type": "error", "message": "x"},
    },
}
BEGIN: dict[str, list[dict[str, Any]]] = {
    "chat_completions": [],
    "messages": [
        {"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "thinking", "thinking": ""}},
        {"type": "content_block_start", "index": 2, "content_block": {"type": "tool_use", "id": "t", "name": "f"}},
    ],
    "responses": [{"type": "response.created", "response": {"id": "r"}}],
}
FRAMINGS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: b"data: " + data + b"\n\n",
    ", CRLF": lambda data: b"data: " + data + b"\r\n\r\n",
}


def streams(format_: Format) -> Iterator[tuple[str, Callable[[int], bytes]]]:
    """Yield kinds of blocks, each with many events of one type, compact and spaced, with different line endings."""
    for kind, event in EVENTS[format_.name].items():
        for spacing, separators in (("", (",", ":")), (", spaced", (", ", ": "))):
            for ending, framed in FRAMINGS.items():
                begin = b"".join(framed(json.dumps(one).encode()) for one in BEGIN[format_.name])
                data = framed(json.dumps(event, separators=separators).encode())
                yield f"{kind}{spacing}{ending}", repeated(data, begin)
    for kind, raw in {
        "done": b"data: [DONE]\n\n",
        "comments": b": x\n\n",
        "empty lines": b"\n\n",
        "carriage returns": b"\r\r",
        "lines": b"data: x\n",
        "no data": b"event: error\n\n",
        "marks": b'data: "finish_reason""usage""error""response""message_start"\n\n',
    }.items():
        yield kind, repeated(raw, b"", b"\n\n")


def relay(format_: Format, block: bytes) -> None:
    """Read a block as it is read without injected tools."""
    _run(format_.single(_STREAMED, 1024 * 1024, usage_asked=False), block)


def weave(format_: Format, block: bytes) -> None:
    """Read a block as it is read with injected tools, one of which the model calls."""
    names, tools = frozenset({"f"}), b'{"name":"f"}'
    _run(finish(format_.woven(_STREAMED, names, tools, _NoMemory(), 1024 * 1024, usage_asked=False)), block)


_STREAMED = b'{"model":"m","stream":true,"messages":[],"input":[]}'


class _NoMemory:
    empty = True

    def held(self, key: str) -> Held | None:
        return None

    def named(self, response_id: str) -> str:
        return response_id


def _run(rounds: Rounds, block: bytes) -> None:
    with suppress(GatewayError):
        rounds.stream(block)
        rounds.message.facts()
        rounds.calls()
        rounds.end()


def frame(chunk: bytes) -> None:
    """Read a chunk in pieces, as a connection delivers it."""
    framer = sse.Framer()
    for at in range(0, len(chunk), 16 * 1024):
        for one in sse.events(framer.feed(chunk[at : at + 16 * 1024])):
            sse.data_of(one)


def inflate(chunk: bytes) -> None:
    inflater = Inflater("gzip", 2**40)
    for at in range(0, len(chunk), 4096):
        inflater.feed(chunk[at : at + 4096])


def client(agent: str) -> None:
    client_of(lambda _: agent, None)
    client_of(lambda name: agent if name != "user-agent" else "claude-cli/2", agent)


ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data),
}


def edit(body: bytes) -> None:
    for one in (
        lambda: find_member(body, "y"),
        lambda: set_member(body, "y", b"1"),
        lambda: add_member(body, "y", b"1"),
        lambda: list_member(body, "messages"),
        lambda: elements(b"[" + body + b"]"),
    ):
        with suppress(ValueError):
            one()


def editing(body: bytes) -> Iterator[None]:
    """Yield after each step of all edits of a request; invalid text ends an edit."""
    for edited in (
        lambda: edits.with_member(body, "y", b"1"),
        lambda: edits.with_new_member(body, "y", b"1"),
        lambda: edits.list_member(body, "messages"),
        lambda: with_tools(body, b"{}"),
        lambda: extended(body, "messages", [b"{}"]),
    ):
        with suppress(ValueError):
            yield from edited()


EDITED_IN_STEPS = {"messages", "parts", "letters", "escapes", "white space", "members", "long name"}
"""A selection of the kinds that take less than a minute at these sizes."""


def works() -> Iterator[Work]:
    for format_ in FORMATS:
        name = "input" if format_ is responses else "messages"
        for kind, shape in bodies(name):
            if format_ is FORMATS[0] or not kind.endswith("elsewhere"):
                yield Work(f"read {format_.name}: {kind}", shape, partial(read_all, format_), CHECKED + 1024)
        for kind, shape in streams(format_):
            yield Work(f"relay {format_.name}: {kind}", shape, partial(relay, format_))
            yield Work(f"weave {format_.name}: {kind}", shape, partial(weave, format_))
    for kind, shape in bodies("messages"):
        yield Work(f"edit: {kind}", shape, edit, largest=LARGE // 8)
        if kind in EDITED_IN_STEPS:
            yield Work(f"edit in steps: {kind}", shape, edit, LARGE + 1024)
    for kind, piece in {
        "events": b"data: x\n\n",
        "CRLF": b"data: x\r\n\r\n",
        "CR": b"data: x\r\r",
        "long lines": b"x",
        "returns": b"\r",
        "line feeds": b"\n",
        "mixed": b"\r\n\r",
        "many lines": b"data: x\n",
    }.items():
        yield Work(f"frame: {kind}", repeated(piece), frame)
    for encoding, encode in ENCODERS.items():
        yield Work(
            f"decode {encoding}",
            lambda size, encode=encode: encode(b"0," * size),  # type: ignore[misc]
            lambda data, encoding=encoding: decode(data, encoding, 2**40),  # type: ignore[misc]
        )
    yield Work("inflate", lambda size: gzip.compress(b"0," * size), inflate)
    for kind, text in {"letters": "x", "sessions": "_session_", "spaces": " ", "names": "openai/", "mark": "{"}.items():
        yield Work(f"client: {kind}", lambda size, text=text: text * (size // len(text)), client)  # type: ignore[misc]
    for kind, piece in STRINGS.items():
        yield Work(f"split: {kind}", lambda size, piece=piece: piece.decode() * (size // len(piece)), split)  # type: ignore[misc]
