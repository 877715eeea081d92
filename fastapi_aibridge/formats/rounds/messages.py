"""Anthropic Messages with injected tools."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from .. import sse
from ..format import count, load, member, objects, text
from ..splice import set_member
from .rounds import Memory, Result, Rounds, Tool, ToolCall, extended, total, with_tools

PING = b'event: ping\ndata: {"type": "ping"}\n\n'


def definitions(tools: Iterable[Tool]) -> bytes:
    """The tools as this format lists them, without the brackets."""
    return b",".join(
        orjson.dumps({"name": tool.name, "description": tool.description, "input_schema": tool.input_schema})
        for tool in tools
    )


def fits(request: Mapping[str, Any]) -> bool:  # noqa: ARG001 - every format's signature
    """Whether tools can be injected into this request."""
    return True


def begin(body: bytes, names: frozenset[str], tools: bytes, memory: Memory, *, usage_asked: bool) -> Rounds:  # noqa: ARG001 - every format's signature
    return MessagesRounds(body, names, tools, memory)


class MessagesRounds:
    def __init__(self, body: bytes, names: frozenset[str], tools: bytes, memory: Memory) -> None:
        self.body = with_tools(_with_held(body, memory), tools)
        self._names = names
        self._usages: list[dict[str, Any]] = []
        self._next_index = 0
        self._said: list[dict[str, Any]] = []
        self._message: dict[str, Any] = {}
        self._answer = b""
        self._begin()

    def _begin(self) -> None:
        self._blocks: dict[int, dict[str, Any]] = {}
        self._inputs: dict[int, list[str]] = {}
        self._indexes: dict[int, int | None] = {}
        self._usage: dict[str, Any] = {}
        self._delta: dict[str, Any] = {}
        self._tail = b""
        self._stopped = False

    # Streamed

    def stream(self, block: bytes) -> bytes:
        return b"".join([self._event(raw) for raw in sse.events(block)])

    def _event(self, raw: bytes) -> bytes:
        event = load(sse.data_of(raw))
        match event.get("type"):
            case "message_start":
                message = member(event, "message")
                self._usage = dict(member(message, "usage"))
                first, self._message = not self._message, self._message or message
                return raw if first else b""
            case "content_block_start":
                return self._block_start(raw, event)
            case "content_block_delta":
                self._apply(count(event.get("index")), member(event, "delta"))
                return self._moved(raw, event)
            case "content_block_stop":
                return self._moved(raw, event)
            case "message_delta":
                self._delta, self._tail = event, raw
                self._usage |= {key: value for key, value in member(event, "usage").items() if value is not None}
                return b""
            case "message_stop":
                self._stopped = True
                self._tail += raw
                return b""
        return raw

    def _block_start(self, raw: bytes, event: dict[str, Any]) -> bytes:
        index, block = count(event.get("index")), dict(member(event, "content_block"))
        self._blocks[index], self._inputs[index] = block, []
        if self._injected(block):
            self._indexes[index] = None
            return b""
        self._indexes[index] = self._next_index
        self._next_index += 1
        return self._moved(raw, event)

    def _moved(self, raw: bytes, event: dict[str, Any]) -> bytes:
        """The event with the index that its block has for the client; nothing for a block that it does not see."""
        index = event.get("index")
        new = self._indexes.get(count(index))
        if new is None:
            return b""
        return raw if new == index else sse.event(orjson.dumps({**event, "index": new}), text(event.get("type")))

    def _apply(self, index: int, delta: dict[str, Any]) -> None:
        block = self._blocks.get(index)
        if block is None:
            return
        match delta.get("type"):
            case "text_delta":
                block["text"] = text(block.get("text")) + text(delta.get("text"))
            case "thinking_delta":
                block["thinking"] = text(block.get("thinking")) + text(delta.get("thinking"))
            case "signature_delta":
                block["signature"] = text(block.get("signature")) + text(delta.get("signature"))
            case "input_json_delta":
                self._inputs[index].append(text(delta.get("partial_json")))
            case "citations_delta":
                block["citations"] = [*(block.get("citations") or []), delta.get("citation")]

    # Blocking

    def blocking(self, body: bytes) -> None:
        value = load(body)
        self._answer = body
        self._message = value
        self._usage = dict(member(value, "usage"))
        self._delta = {"delta": {"stop_reason": value.get("stop_reason")}}
        self._blocks = dict(enumerate(objects(value.get("content"))))
        self._inputs = {}
        self._stopped = True

    # Round

    def _injected(self, block: Mapping[str, Any]) -> bool:
        return block.get("type") == "tool_use" and block.get("name") in self._names

    @property
    def _stop_reason(self) -> object:
        return member(self._delta, "delta").get("stop_reason")

    def calls(self) -> list[ToolCall]:
        # A message that was cut off (`max_tokens`) may hold half a call; only `tool_use` asks for results.
        if not self._stopped or self._stop_reason != "tool_use":
            return []
        return [
            ToolCall(id=text(block.get("id")), name=text(block.get("name")), arguments=self._arguments(index))
            for index, block in self._blocks.items()
            if self._injected(block)
        ]

    def _arguments(self, index: int) -> str:
        pieces = "".join(self._inputs.get(index, ()))
        return pieces or orjson.dumps(self._blocks[index].get("input") or {}).decode()

    def own_calls(self) -> list[str]:
        return [
            text(block.get("id"))
            for block in self._blocks.values()
            if block.get("type") == "tool_use" and not self._injected(block)
        ]

    def go_on(self, results: Sequence[Result], *, last: bool) -> None:
        content = [self._finished(index, block) for index, block in self._blocks.items()]
        said = [block for block in content if block.get("type") != "text" or block.get("text")]
        turn = [
            {"role": "assistant", "content": said},
            {"role": "user", "content": [_tool_result(result) for result in results]},
        ]
        self.body = extended(self.body, "messages", turn)
        if last:
            self.body = set_member(self.body, "tool_choice", b'{"type":"none"}')
        self._said += [block for block in said if not self._injected(block)]
        self._usages.append(self._usage)
        self._begin()

    def _finished(self, index: int, block: dict[str, Any]) -> dict[str, Any]:
        """The block as it goes back upstream: what the model said, signatures included, word for word."""
        pieces = "".join(self._inputs.get(index, ()))
        if pieces:
            arguments = ToolCall(id="", name="", arguments=pieces).parsed()
            return {**block, "input": arguments if arguments is not None else {}}
        return block

    # The end

    def end(self) -> bytes:
        usage = total([*self._usages, self._usage])
        if self._answer:
            return self._blocking_end(usage)
        if not self._stopped:
            return b""
        reason = self._visible_stop_reason()
        if not self._usages and reason == self._stop_reason:
            return self._tail
        delta = {**self._delta, "usage": usage}
        delta["delta"] = {**member(delta, "delta"), "stop_reason": reason}
        stop = sse.event(b'{"type":"message_stop"}', "message_stop")
        return sse.event(orjson.dumps(delta), "message_delta") + stop

    def _blocking_end(self, usage: dict[str, Any]) -> bytes:
        hidden = any(self._injected(block) for block in self._blocks.values())
        if not self._usages and not hidden:
            return self._answer
        content = [*self._said, *(block for block in self._blocks.values() if not self._injected(block))]
        body = set_member(self._answer, "content", orjson.dumps(content))
        body = set_member(body, "stop_reason", orjson.dumps(self._visible_stop_reason()))
        return set_member(body, "usage", orjson.dumps(usage))

    def _visible_stop_reason(self) -> object:
        """`tool_use` only where the client sees a tool use."""
        reason = self._stop_reason
        return "end_turn" if reason == "tool_use" and not self.own_calls() else reason

    @property
    def alias(self) -> tuple[str, str] | None:
        return None

    def ping(self) -> bytes:
        return PING


def _tool_result(result: Result) -> dict[str, Any]:
    content = [
        {"type": "image", "source": {"type": "base64", "media_type": part.mime_type, "data": part.image}}
        if part.image
        else {"type": "text", "text": part.text or " "}
        for part in result.parts
    ]
    block: dict[str, Any] = {"type": "tool_result", "tool_use_id": result.call.id}
    block["content"] = content or [{"type": "text", "text": "(no output)"}]
    if result.is_error:
        block["is_error"] = True
    return block


def _with_held(body: bytes, memory: Memory) -> bytes:
    """The request with injected calls of earlier turns put back beside the client's calls of those turns."""
    value = load(body)
    messages = objects(value.get("messages"))
    changed = False
    for index, message in enumerate(messages):
        content = message.get("content")
        if message.get("role") != "assistant" or not isinstance(content, list):
            continue
        calls = [block for block in objects(content) if block.get("type") == "tool_use"]
        kept = next((found for block in calls if (found := memory.held(text(block.get("id"))))), None)
        if kept is None or index + 1 >= len(messages):
            continue
        following = messages[index + 1]
        answers = following.get("content")
        if following.get("role") != "user" or not isinstance(answers, list):
            continue
        uses = [
            {"type": "tool_use", "id": one.call.id, "name": one.call.name, "input": one.call.parsed() or {}}
            for one in kept.results
        ]
        messages[index] = {**message, "content": [*content, *uses]}
        messages[index + 1] = {**following, "content": [*(_tool_result(one) for one in kept.results), *answers]}
        changed = True
    return set_member(body, "messages", orjson.dumps(messages)) if changed else body
