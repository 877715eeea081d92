"""Anthropic Messages with injected tools."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from ... import sse
from ..lenient import count, load, member, objects, text
from ..rounds import (
    Held,
    Memory,
    Result,
    Rounds,
    Tool,
    ToolCall,
    Turn,
    extended,
    offered,
    parameters,
    total,
    with_tools,
)
from ..splice import list_member, set_member

PING = b'event: ping\ndata: {"type": "ping"}\n\n'


def definitions(tools: Iterable[Tool]) -> bytes:
    """The tools as this format lists them, without the brackets."""
    return b",".join(
        orjson.dumps({"name": tool.name, "description": tool.description, "input_schema": parameters(tool)})
        for tool in tools
    )


def begin(body: bytes, names: frozenset[str], tools: bytes, memory: Memory, *, usage_asked: bool) -> Rounds:  # noqa: ARG001 - every format's signature
    names, tools = offered(body, names, tools)
    return MessagesRounds(body, names, tools, memory)


class MessagesRounds:
    def __init__(self, body: bytes, names: frozenset[str], tools: bytes, memory: Memory) -> None:
        self.body = with_tools(restored(body, memory), tools)
        self.names = names
        self._usages: list[dict[str, Any]] = []
        self._said: list[dict[str, Any]] = []
        self._turns: list[Turn] = []
        self._next_index = 0
        self._begun = False
        self._answer: bytes | None = None
        self._begin()

    def _begin(self) -> None:
        self._blocks: dict[int, dict[str, Any]] = {}
        self._inputs: dict[int, list[str]] = {}
        self._indexes: dict[int, int | None] = {}
        self._usage: dict[str, Any] = {}
        self._delta: dict[str, Any] = {}
        self._tail = b""
        self._stopped = False

    @property
    def _untouched(self) -> bool:
        """Whether the client gets every byte as it came."""
        return not self._usages and None not in self._indexes.values()

    # Streamed

    def stream(self, block: bytes) -> bytes:
        return b"".join([self._event(raw) for raw in sse.events(block)])

    def _event(self, raw: bytes) -> bytes:
        event = load(sse.data_of(raw))
        match event.get("type"):
            case "message_start":
                self._usage = dict(member(member(event, "message"), "usage"))
                first, self._begun = not self._begun, True
                return raw if first else b""
            case "content_block_start":
                return self._block_start(raw, event)
            case "content_block_delta":
                self._apply(count(event.get("index")), member(event, "delta"))
                return self._moved(raw, event)
            case "content_block_stop":
                return self._moved(raw, event)
            case "message_delta":
                self._message_delta(event)
                self._tail += raw
                return b""
            case "message_stop":
                self._stopped = True
            case "error":
                tail, self._tail = self._tail, b""
                return tail + raw if self._untouched else raw
        if self._tail or self._stopped:
            self._tail += raw
            return b""
        return raw

    def _block_start(self, raw: bytes, event: dict[str, Any]) -> bytes:
        index, block = count(event.get("index")), dict(member(event, "content_block"))
        self._blocks[index], self._inputs[index] = block, []
        if self._injected(block):
            self._indexes[index] = None
            return b""
        # Until something is hidden the client sees the provider's own numbers.
        self._indexes[index] = index if self._untouched else self._next_index
        self._next_index = (self._indexes[index] or 0) + 1
        return self._moved(raw, event)

    def _moved(self, raw: bytes, event: dict[str, Any]) -> bytes:
        """The event with the index that its block has for the client; nothing for a block that it does not see."""
        index = event.get("index")
        new = self._indexes.get(count(index))
        if new is None:
            return raw if self._untouched else b""
        return raw if new == index else sse.event(orjson.dumps({**event, "index": new}), text(event.get("type")))

    def _apply(self, index: int, delta: dict[str, Any]) -> None:
        block = self._blocks.get(index)
        if block is None:
            return
        match delta.get("type"):
            case "input_json_delta":
                self._inputs[index].append(text(delta.get("partial_json")))
            case "citations_delta":
                block["citations"] = [*(block.get("citations") or []), delta.get("citation")]
            case "text_delta" | "thinking_delta":
                key = "text" if "text" in delta else "thinking"
                block[key] = text(block.get(key)) + text(delta.get(key))
            case _:
                # Signatures, compactions and what is still to come: their members are the block's.
                block.update({key: value for key, value in delta.items() if key != "type"})

    def _message_delta(self, event: dict[str, Any]) -> None:
        """There may be several: each says what it knows, and its counts are cumulative."""
        before, now = member(self._delta, "delta"), member(event, "delta")
        delta = before | {key: value for key, value in now.items() if value is not None or key not in before}
        self._delta = {**self._delta, **event, "delta": delta}
        self._usage |= {key: value for key, value in member(event, "usage").items() if value is not None}

    # Blocking

    def blocking(self, body: bytes) -> None:
        value = load(body)
        self._answer = body
        self._usage = dict(member(value, "usage"))
        self._delta = {"delta": {"stop_reason": value.get("stop_reason")}}
        self._blocks = dict(enumerate(objects(value.get("content"))))
        self._indexes = {index: None if self._injected(block) else index for index, block in self._blocks.items()}
        self._stopped = True

    # Round

    def _injected(self, block: Mapping[str, Any]) -> bool:
        return block.get("type") == "tool_use" and text(block.get("name")) in self.names

    @property
    def _stop_reason(self) -> object:
        return member(self._delta, "delta").get("stop_reason")

    def calls(self) -> list[ToolCall]:
        # A message that was cut off (`max_tokens`) may hold half a call; only `tool_use` asks for results.
        if not self._stopped or self._stop_reason != "tool_use":
            return []
        return [self._call(index, block) for index, block in self._blocks.items() if self._injected(block)]

    def _call(self, index: int, block: Mapping[str, Any]) -> ToolCall:
        arguments = "".join(self._inputs.get(index, ())) or orjson.dumps(block.get("input") or {}).decode()
        extra = {key: value for key, value in block.items() if key not in ("type", "id", "name", "input")}
        return ToolCall(id=text(block.get("id")), name=text(block.get("name")), arguments=arguments, extra=extra)

    def own_calls(self) -> list[str]:
        return [
            text(block.get("id"))
            for block in self._blocks.values()
            if block.get("type") == "tool_use" and not self._injected(block)
        ]

    def held(self, results: Sequence[Result]) -> Held:
        return Held(earlier=tuple(self._turns), results=tuple(results))

    def go_on(self, results: Sequence[Result], *, last: bool) -> None:
        said = [self._finished(index, block) for index, block in self._blocks.items() if not _is_blank(block)]
        turn = [
            {"role": "assistant", "content": said},
            {"role": "user", "content": [_tool_result(result) for result in results]},
        ]
        self.body = extended(self.body, "messages", turn)
        if last:
            self.body = set_member(self.body, "tool_choice", b'{"type":"none"}')
        seen = [block for block in said if not self._injected(block)]
        self._said += seen
        self._turns.append(Turn(said=tuple(map(_mark, seen)), results=tuple(results)))
        self._usages.append(self._usage)
        self._begin()

    def _finished(self, index: int, block: dict[str, Any]) -> dict[str, Any]:
        """The block as it goes back upstream: what the model said, signatures included, word for word."""
        pieces = "".join(self._inputs.get(index, ()))
        if pieces:
            return {**block, "input": ToolCall(id="", name="", arguments=pieces).parsed() or {}}
        return block

    # The end

    def end(self) -> bytes:
        usage = total([*self._usages, self._usage])
        if self._answer is not None:
            return self._blocking_end(self._answer, usage)
        reason = self._visible_stop_reason()
        if not self._stopped or (not self._usages and reason == self._stop_reason):
            return self._tail
        delta = {**self._delta, "usage": usage}
        delta["delta"] = {**member(delta, "delta"), "stop_reason": reason}
        stop = sse.event(b'{"type":"message_stop"}', "message_stop")
        return sse.event(orjson.dumps(delta), "message_delta") + stop

    def _blocking_end(self, answer: bytes, usage: dict[str, Any]) -> bytes:
        if self._untouched or not isinstance(load(answer).get("content"), list):
            return answer
        content = [*self._said, *(block for block in self._blocks.values() if not self._injected(block))]
        body = set_member(answer, "content", orjson.dumps(content))
        body = set_member(body, "stop_reason", orjson.dumps(self._visible_stop_reason()))
        return set_member(body, "usage", orjson.dumps(usage)) if usage else body

    def _visible_stop_reason(self) -> object:
        """`tool_use` only where the client sees a tool use."""
        reason = self._stop_reason
        return "end_turn" if reason == "tool_use" and not self.own_calls() else reason

    @property
    def alias(self) -> tuple[str, str] | None:
        return None

    def ping(self) -> bytes:
        return PING


def _is_blank(block: Mapping[str, Any]) -> bool:
    """The provider writes such a block, but does not take it back."""
    return block.get("type") == "text" and not text(block.get("text")).strip()


def _mark(block: Mapping[str, Any]) -> str:
    """By what a block is known again in a later request."""
    own = next((name for name in ("signature", "data", "id", "tool_use_id", "text") if block.get(name)), "")
    return f"{block.get('type')} {block.get(own, '')}"


def _tool_use(call: ToolCall) -> dict[str, Any]:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": call.parsed() or {}, **call.extra}


def _tool_result(result: Result) -> dict[str, Any]:
    # An error may hold nothing but text, and no text may be blank.
    content = [
        {"type": "image", "source": {"type": "base64", "media_type": part.mime_type, "data": part.image}}
        if part.image
        else {"type": "text", "text": part.text}
        for part in result.parts
        if part.image or part.text.strip()
    ]
    if result.is_error or not content:
        content = [{"type": "text", "text": result.text}]
    block: dict[str, Any] = {"type": "tool_result", "tool_use_id": result.call.id, "content": content}
    if result.is_error:
        block["is_error"] = True
    return block


def restored(body: bytes, memory: Memory) -> bytes:
    """The request with what the client does not know of earlier responses put back."""
    if memory.empty:
        return body
    woven = list_member(body, "messages")
    done: list[Held] = []
    for index in range(len(woven) - 1):
        message = load(woven[index]) if b'"tool_use"' in woven[index] else {}
        blocks = message.get("content")
        if message.get("role") != "assistant" or not isinstance(blocks, list):
            continue
        uses = [block for block in objects(blocks) if block.get("type") == "tool_use"]
        kept = next((found for block in uses if (found := memory.held(text(block.get("id"))))), None)
        following = load(woven[index + 1])
        answers = following.get("content")
        if kept is None or any(kept is one for one in done):
            continue
        if following.get("role") != "user" or not isinstance(answers, list):
            continue
        turns, last = _unwoven([block for block in objects(blocks) if not _is_blank(block)], kept)
        now = {**message, "content": [*last, *(_tool_use(one.call) for one in kept.results)]}
        woven[index] = b",".join(map(orjson.dumps, [*turns, now]))
        if kept.results:
            results = [_tool_result(one) for one in kept.results]
            woven[index + 1] = orjson.dumps({**following, "content": [*results, *answers]})
        done.append(kept)
    return set_member(body, "messages", b"[" + b",".join(woven) + b"]") if done else body


def _unwoven(blocks: list[dict[str, Any]], kept: Held) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The messages of the earlier rounds, as the model wrote them, and what is left of the client's blocks.

    Where those are not what the client was given the earlier rounds stay out: thinking must not be moved.
    """
    marks = [mark for turn in kept.earlier for mark in turn.said]
    if marks != [_mark(block) for block in blocks[: len(marks)]]:
        return [], blocks
    turns: list[dict[str, Any]] = []
    for turn in kept.earlier:
        said, blocks = blocks[: len(turn.said)], blocks[len(turn.said) :]
        turns.append({"role": "assistant", "content": [*said, *(_tool_use(one.call) for one in turn.results)]})
        turns.append({"role": "user", "content": [_tool_result(one) for one in turn.results]})
    return turns, blocks
