"""Anthropic Messages with injected tools: several upstream messages become the one that the client sees."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from ... import sse
from ...errors import GatewayError
from ...tools import Text, Tool
from ..decoder import Decoder
from ..edits import value_of, with_member
from ..large_text import BodyText, Steps, unchanged
from ..lenient import as_object, load, member, objects, text
from ..rounds import (
    AnsweredCall,
    Held,
    HiddenCall,
    Memory,
    Tail,
    ToolCall,
    Turn,
    extended,
    forced,
    offered,
    parameters,
    too_large,
    unique_id,
    with_tools,
)
from ..splice import set_member
from ..text import Budget
from ..usage import total
from .message import AnthropicMessage, Block
from .restoring import mark_of, restored
from .streams import error_events, tells

CUT_OFF = ("max_tokens", "model_context_window_exceeded", "pause_turn", "refusal", "stop_sequence")
"""Stop reasons of messages that were cut off."""
PING = b'event: ping\ndata: {"type": "ping"}\n\n'


max_tools: int | None = None
"""Anthropic accepts any number."""


def definitions(tools: Iterable[Tool]) -> bytes:
    """Serialize the tools as this format lists them, without the brackets."""
    return b",".join(
        orjson.dumps({"name": tool.name, "description": tool.description, "input_schema": parameters(tool)})
        for tool in tools
    )


def woven(
    body: BodyText,
    names: frozenset[str],
    tools: bytes,
    memory: Memory,
    max_text: int,
    *,
    usage_asked: bool,  # noqa: ARG001 - every format's signature
) -> Steps[MessagesWeaver]:
    names, tools = yield from offered(body, names, tools, max_tools)
    body = yield from with_tools((yield from restored(body, memory)), tools)
    return MessagesWeaver(body, names, max_text)


class MessagesWeaver:
    def __init__(self, body: BodyText, names: frozenset[str], max_text: int) -> None:
        self.body = body
        self.names = names
        self._budget = Budget.of_rounds(max_text)
        self._usages: list[dict[str, Any]] = []
        self._said: list[dict[str, Any]] = []
        self._turns: list[Turn] = []
        self._next_index = 0
        self._begun = False
        self._container: object = None
        self._answer: bytes | None = None
        self._ids: set[str] = set()  # of the calls of earlier rounds
        self._begin()

    def _begin(self) -> None:
        self.message = AnthropicMessage(self._budget, whole=True)
        self._decoder = Decoder(self.message, tells, every=True, goes_back=lambda events: b"tool_use" in events)
        self._hides = False
        self._tail = Tail()

    @property
    def untouched(self) -> bool:
        return not self._usages and not self._hides

    # Streamed

    def stream(self, block: bytes) -> bytes:
        if self.untouched and not self._tail and not self.message.complete and self._decoder.postpones(block):
            return block
        return b"".join([self._event(raw, event) for raw, event in self._decoder.feed(block)])

    def _event(self, raw: bytes, event: Mapping[str, Any]) -> bytes:
        match event.get("type"):
            case "content_block_delta" | "content_block_stop":
                return self._moved(raw, event)
            case "content_block_start":
                return self._block_start(raw, event)
            case "message_start":
                first, self._begun = not self._begun, True
                return raw if first else b""
            case "message_delta":
                self._tail.add(raw)
                return b""
            case "error":
                return self._flushed() + raw
        if self._tail or self.message.complete:
            self._tail.add(raw)
            return b""
        return raw

    def _block_start(self, raw: bytes, event: Mapping[str, Any]) -> bytes:
        block = self.message.block(event)
        if block is None:
            raise too_large()
        if self._injected(block):
            block.hidden = self._hides = True
            return b""
        # Until something is hidden the client sees the provider's own numbers.
        index = event.get("index")
        block.index = index if self.untouched and isinstance(index, int) else self._next_index
        self._next_index = block.index + 1
        return self._moved(raw, event)

    def _moved(self, raw: bytes, event: Mapping[str, Any]) -> bytes:
        """Return the event with the client's index of its block; empty for a block that the client does not see."""
        if self.untouched:
            return raw
        block = self.message.block(event)
        if block is None or block.index is None:
            return b""
        if block.index == event.get("index"):
            return raw
        return sse.event(orjson.dumps({**event, "index": block.index}), text(event.get("type")))

    def _injected(self, block: Block) -> bool:
        return block.kind == "tool_use" and block.tool in self.names

    # Blocking

    def blocking(self, body: bytes) -> bool:
        self._answer = body
        answer = self._decoder.read(body)
        for block in self.message.blocks:
            block.hidden = self._injected(block)
            self._hides = self._hides or block.hidden
        return answer is not None

    # Round

    def calls(self) -> list[ToolCall]:
        # A message that was cut off may end in half a call. Compatible servers have other reasons, or none.
        if not self.message.complete or self.message.stop_reason in CUT_OFF:
            return []
        hidden = [block for block in self.message.blocks if block.hidden]
        if hidden and self._budget.exceeded:
            raise too_large()
        taken = {*self._ids, *self.client_calls()}
        for block in hidden:
            block.rename(unique_id(block.id, taken))
        return [block.call() for block in hidden]

    def client_calls(self) -> list[str]:
        return [block.id for block in self.message.blocks if block.kind == "tool_use" and not block.hidden]

    def held(self, results: Sequence[AnsweredCall]) -> Held:
        given = {one.call.id: orjson.dumps(_tool_result(one)) for one in results}
        seen: list[str] = []
        hidden: list[HiddenCall] = []
        for block in self.message.blocks:
            if not block.hidden:
                seen += [] if block.is_blank else [mark_of(block.written())]
            elif (output := given.get(block.id)) is not None:
                call = orjson.dumps(block.written())
                hidden.append(HiddenCall(id=block.id, call=call, output=output, place=len(seen)))
        return Held(earlier=tuple(self._turns), hidden=tuple(hidden), ending=tuple(seen))

    def held_under(self) -> list[str]:
        return self.client_calls()

    def go_on(self, results: Sequence[AnsweredCall], *, last: bool) -> Steps[None]:
        message = self.message
        said = [(block, block.written()) for block in message.blocks if not block.is_blank]
        written = (
            orjson.dumps({"role": "assistant", "content": [one for _, one in said]}),
            orjson.dumps({"role": "user", "content": [_tool_result(result) for result in results]}),
        )
        self.body = yield from extended(self.body, "messages", written)
        yield from self._choose(last=last)
        yield from self._name_container()
        seen = [one for block, one in said if not block.hidden]
        if self._answer is not None:
            self._said += seen
        self._turns.append(Turn(said=tuple(map(mark_of, seen)), written=written))
        self._usages.append(message.usage)
        self._ids.update(block.id for block in message.blocks if block.hidden)
        self._begin()

    def _choose(self, *, last: bool) -> Steps[None]:
        if last:
            self.body = yield from with_member(self.body, "tool_choice", b'{"type":"none"}')
            return
        asked = yield from value_of(self.body, "tool_choice")
        kept = {key: value for key, value in as_object(asked).items() if key == "disable_parallel_tool_use"}
        if (choice := forced(asked, {"type": "auto", **kept})) is not None:
            self.body = yield from with_member(self.body, "tool_choice", orjson.dumps(choice))

    def _name_container(self) -> Steps[None]:
        """Name the container of this round's code in the next request: its files are there."""
        self._container = self.message.container or self._container
        container = self._container
        name = container if isinstance(container, str) else as_object(container).get("id")
        if not name:
            return
        asked = yield from value_of(self.body, "container")
        named = {**asked, "id": name} if isinstance(asked, dict) else name
        self.body = yield from with_member(self.body, "container", orjson.dumps(named))

    def take_out(self, refusal: bytes) -> Steps[bool]:  # noqa: ARG002 - nothing is named by ids
        return unchanged(False)

    # The end

    def end(self) -> bytes:
        usage = total([*self._usages, self.message.usage])
        if self._answer is not None:
            return self._blocking_end(self._answer, usage)
        reason = self._visible_stop_reason()
        if not self.message.complete or (not self._usages and reason == self.message.stop_reason):
            return bytes(self._tail)
        delta = {**self.message.delta, "type": "message_delta", "usage": usage}
        delta["delta"] = {**member(delta, "delta"), "stop_reason": reason}
        if self._container and not delta["delta"].get("container"):
            delta["delta"]["container"] = self._container
        stop = sse.event(b'{"type":"message_stop"}', "message_stop")
        return sse.event(orjson.dumps(delta), "message_delta") + stop

    def _blocking_end(self, answer: bytes, usage: dict[str, Any]) -> bytes:
        content = load(answer).get("content")
        if self.untouched or not isinstance(content, list):
            return answer
        pairs = zip(objects(content), self.message.blocks, strict=False)
        visible = [*self._said, *(one for one, block in pairs if not block.hidden)]
        body = set_member(answer, "content", orjson.dumps(visible))
        body = set_member(body, "stop_reason", orjson.dumps(self._visible_stop_reason()))
        if self._container and not self.message.container:
            body = set_member(body, "container", orjson.dumps(self._container))
        return set_member(body, "usage", orjson.dumps(usage)) if usage else body

    def _visible_stop_reason(self) -> object:
        """Return the stop reason for the client: `tool_use` only where it sees a tool use."""
        reason = self.message.stop_reason
        return "end_turn" if reason == "tool_use" and not self.client_calls() else reason

    @property
    def alias(self) -> tuple[str, str] | None:
        return None

    def ping(self) -> bytes:
        return PING

    def error_events(self, error: GatewayError, *, failed: bool = False) -> bytes:
        return self._flushed() + error_events(error, self._decoder, failed)

    def _flushed(self) -> bytes:
        """Return the held-back events of a message that ends in an error, if the client gets it unchanged."""
        tail, self._tail = self._tail, Tail()
        return bytes(tail) if self.untouched else b""


def _tool_result(answered: AnsweredCall) -> dict[str, Any]:
    # An error may contain only text, and no text may be blank.
    content = [
        {"type": "text", "text": part.text}
        if isinstance(part, Text)
        else {"type": "image", "source": {"type": "base64", "media_type": part.mime_type, "data": part.data}}
        for part in answered.result.content
        if not isinstance(part, Text) or part.text.strip()
    ]
    if answered.result.is_error or not content:
        content = [{"type": "text", "text": answered.result.text}]
    block: dict[str, Any] = {"type": "tool_result", "tool_use_id": answered.call.id, "content": content}
    if answered.result.is_error:
        block["is_error"] = True
    return block
