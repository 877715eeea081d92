"""Chat Completions with injected tools: several upstream messages become the one that the client sees."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from ... import sse
from ...errors import GatewayError
from ...tools import Tool
from ..decoder import Decoder
from ..edits import list_member, value_of, with_list, with_member
from ..large_text import BodyText, Steps
from ..lenient import load, member, objects, text
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
from .message import Call, ChatMessage
from .restoring import parts_of, restored, separator, texts_joined
from .streams import error_events, tells

CUT_OFF = ("length", "max_tokens", "content_filter", "error")
"""Finish reasons of messages that were cut off."""

PING = b": ping\n\n"

_GO_BACK = (b"tool_calls", b"function_call", b'"content":"', b'"content": "', b'"reasoning')


_REQUIRED = ("role", "content", "tool_calls", "tool_call_id")
"""Members of a message that are never taken out."""
_WAITING = 256
"""Events that may wait for the rest of a tool's name; no provider sends one in so many pieces."""

max_tools = 128
"""The most tools that OpenAI accepts in one request."""


def definitions(tools: Iterable[Tool]) -> bytes:
    """Serialize the tools as this format lists them, without the brackets."""
    return b",".join(
        orjson.dumps(
            {
                "type": "function",
                "function": {"name": tool.name, "description": tool.description, "parameters": parameters(tool)},
            }
        )
        for tool in tools
    )


def woven(
    body: BodyText, names: frozenset[str], tools: bytes, memory: Memory, max_text: int, *, usage_asked: bool
) -> Steps[ChatWeaver]:
    names, tools = yield from offered(body, names, tools, max_tools)
    body = yield from with_tools((yield from restored(body, memory)), tools)
    return ChatWeaver(body, names, max_text, usage_asked=usage_asked)


class ChatWeaver:
    def __init__(self, body: BodyText, names: frozenset[str], max_text: int, *, usage_asked: bool) -> None:
        self.body = body
        self.names = names
        self._asked = usage_asked
        self._budget = Budget.of_rounds(max_text)
        self._usages: list[dict[str, Any]] = []
        self._begun = False
        self._first: Mapping[str, Any] = {}
        self._answer: bytes | None = None
        self._said: list[object] = []  # the content of each earlier round that had some
        self._turns: list[Turn] = []
        self._pending = b""
        self._ids: set[str] = set()  # of the calls of earlier rounds
        self._added = 0  # messages at the end of the request
        self._refused: set[str] = set()  # members that the provider does not accept in its own messages
        self._begin()

    def _begin(self) -> None:
        self.message = ChatMessage(self._budget, whole=True)
        self._decoder = Decoder(self.message, tells, every=True, goes_back=_may_go_back)
        self._next_number = 0
        self._hides = False
        self._spoken = False
        self._finish_chunk: Mapping[str, Any] = {}
        self._usage_chunk: Mapping[str, Any] = {}
        # Events from the finish on: as received, and rewritten for a client from which something is hidden.
        self._tail = Tail()
        self._rewritten: list[bytes] = []
        # Events since a call that may or may not be hidden, each with its calls.
        self._waiting: list[tuple[bytes, Mapping[str, Any], list[Call]]] = []
        self._unnamed: list[Call] = []

    @property
    def untouched(self) -> bool:
        return not self._usages and not self._hides

    # Streamed

    def stream(self, block: bytes) -> bytes:
        passes = self._begun and self.untouched and not (self._tail or self._waiting or self._unnamed)
        if passes and self._decoder.postpones(block):
            return block
        pending, self._pending = self._pending, b""
        return pending + b"".join([self._event(raw, event) for raw, event in self._decoder.feed(block)])

    def _event(self, raw: bytes, chunk: Mapping[str, Any]) -> bytes:
        calls = self.message.touched if chunk else []
        if calls or self._unnamed:
            self._unnamed = [call for call in {*self._unnamed, *calls} if self._is_unnamed(call)]
            if self._unnamed or self._waiting:
                self._waiting.append((raw, chunk, calls))
                over = self.message.complete or chunk.get("error") or len(self._waiting) > _WAITING
                return self._settled() if over or not self._unnamed else b""
        return self._passed(raw, chunk, calls)

    def _is_unnamed(self, call: Call) -> bool:
        """Whether the rest of its name may still come, so that the tool may or may not be an injected one."""
        if call.placed or call.custom or (call.begun and call.tool):
            return False
        return any(name.startswith(call.tool) for name in self.names)

    def _settled(self) -> bytes:
        """Return the events that waited for a name, as the client gets them."""
        waiting, self._waiting, self._unnamed = self._waiting, [], []
        return b"".join([self._passed(*one) for one in waiting])

    def _passed(self, raw: bytes, chunk: Mapping[str, Any], calls: Sequence[Call]) -> bytes:
        if not chunk:
            done = self.message.stream_complete
            return self._keep(raw, b"" if done else raw) if done or self._tail else raw
        if chunk.get("error"):
            return self._flushed() + raw
        first, self._begun = not self._begun, True
        if not self._first and text(chunk.get("id")):
            self._first = {key: chunk[key] for key in ("id", "created") if key in chunk}
        choices = objects(chunk.get("choices"))
        if choices:
            return self._choice(raw, chunk, choices[0], calls, first=first)
        if member(chunk, "usage"):
            self._usage_chunk = chunk
            return self._keep(raw, b"") if self._asked else b""
        if self._tail:
            return self._keep(raw, b"")
        return b"" if self._usages else raw

    def _keep(self, raw: bytes, rewritten: bytes) -> bytes:
        self._tail.add(raw)
        self._rewritten.append(rewritten)
        return b""

    def _choice(
        self,
        raw: bytes,
        chunk: Mapping[str, Any],
        choice: Mapping[str, Any],
        calls: Sequence[Call],
        *,
        first: bool,
    ) -> bytes:
        self._number(calls)
        reason = choice.get("finish_reason")
        if reason:
            self._finish_chunk = chunk
        if not reason and not self._tail and self.untouched:
            self._spoken = self._spoken or bool(member(choice, "delta").get("content"))
            return raw
        rewritten = self._rewrite(chunk, choice, calls, first=first)
        return self._keep(raw, rewritten) if reason or self._tail else raw if self.untouched else rewritten

    def _rewrite(
        self, chunk: Mapping[str, Any], choice: Mapping[str, Any], calls: Sequence[Call], *, first: bool
    ) -> bytes:
        """Return the chunk for a client from which something is hidden, in this round or an earlier one."""
        delta = dict(member(choice, "delta"))
        if written := objects(delta.pop("tool_calls", None)):
            pairs = zip(written, calls, strict=False)
            if visible := [one | {"index": call.number} for one, call in pairs if not call.hidden]:
                delta["tool_calls"] = visible
        said = delta.get("content")
        if said and not self._spoken:
            self._spoken = True
            if isinstance(said, str) and (between := separator(self._said)):
                delta["content"] = between + said
        if self._usages:
            delta.pop("role", None)
        says = any(value for value in delta.values()) or choice.get("logprobs")
        if not says and not (first and not choice.get("finish_reason")):
            return b""
        new = {**chunk, **self._first, "choices": [{**choice, "delta": delta, "finish_reason": None}]}
        return sse.event(orjson.dumps(new))

    def _number(self, calls: Sequence[Call]) -> None:
        """Number the calls that have just begun among those that the client sees."""
        for call in calls:
            if call.placed:
                continue
            call.placed = True
            call.hidden = call.tool in self.names
            if call.hidden:
                self._hides = True
                continue
            # Until something is hidden the client sees the provider's own numbers.
            call.number = max(call.number, self._next_number) if self.untouched else self._next_number
            self._next_number = call.number + 1

    # Blocking

    def blocking(self, body: bytes) -> bool:
        self._answer = body
        answer = self._decoder.read(body)
        self._number(self.message.touched)
        return answer is not None

    # Round

    def calls(self) -> list[ToolCall]:
        # A message that was cut off may end in half a call. Other reasons vary by provider, or are missing.
        if not self.message.complete or self.message.finish in CUT_OFF:
            return []
        hidden = [call for call in self.message.calls if call.hidden]
        if hidden and self._budget.exceeded:
            raise too_large()
        taken = {*self._ids, *self.client_calls()}
        for call in hidden:
            call.id = unique_id(call.id, taken)
        return [call.whole() for call in hidden]

    def client_calls(self) -> list[str]:
        return [call.id for call in self.message.calls if not call.hidden]

    def held(self, results: Sequence[AnsweredCall]) -> Held:
        written = {call.id: call.written() for call in self.message.calls if call.hidden}
        hidden = [
            HiddenCall(id=one.call.id, call=orjson.dumps(written[one.call.id]), output=orjson.dumps(_tool_message(one)))
            for one in results
        ]
        order = tuple(call.id for call in self.message.calls)
        return Held(earlier=tuple(self._turns), hidden=tuple(hidden), order=order)

    def held_under(self) -> list[str]:
        return self.client_calls()

    def go_on(self, results: Sequence[AnsweredCall], *, last: bool) -> Steps[None]:
        message = {key: one for key, one in self.message.written().items() if key not in self._refused}
        written = [orjson.dumps(message), *(orjson.dumps(_tool_message(one)) for one in results)]
        self.body = yield from extended(self.body, "messages", written)
        self._added += len(written)
        yield from self._choose(last=last)
        said = message["content"]
        if said:
            self._said.append(said)
        self._turns.append(Turn(said=parts_of(said), written=tuple(written)))
        self._usages.append(self.message.usage)
        self._ids.update(call.id for call in self.message.calls)
        self._pending = b"".join(self._rewritten)
        self._begin()

    def _choose(self, *, last: bool) -> Steps[None]:
        asked = yield from value_of(self.body, "tool_choice")
        choice = "none" if last else forced(asked, "auto")
        if choice is not None:
            self.body = yield from with_member(self.body, "tool_choice", orjson.dumps(choice))

    def take_out(self, refusal: bytes) -> Steps[bool]:
        """Remove members that a provider puts into its messages but refuses there (Groq, Cerebras, Mistral)."""
        messages = yield from list_member(self.body, "messages")
        first = len(messages) - self._added
        own = [orjson.loads(one) for one in messages[first:]]
        refused = {key for one in own for key in one if key not in _REQUIRED and key.encode() in refusal}
        if not refused:
            return False
        self._refused |= refused
        messages[first:] = [orjson.dumps({key: one[key] for key in one if key not in refused}) for one in own]
        self.body = yield from with_list(self.body, "messages", messages)
        return True

    # The end

    def end(self) -> bytes:
        usage = total([*self._usages, self.message.usage])
        if self._answer is not None:
            return self._blocking_end(self._answer, usage)
        if self.untouched or not self._finish_chunk:
            return bytes(self._tail)
        choice = {**objects(self._finish_chunk["choices"])[0], "delta": {}, "finish_reason": self._visible_finish()}
        finish = {**self._finish_chunk, **self._first, "choices": [choice]}
        if member(self._finish_chunk, "usage"):
            finish["usage"] = usage
        events = [finish]
        if self._asked and self._usage_chunk:
            events.append({**self._usage_chunk, **self._first, "usage": usage})
        return b"".join([*self._rewritten, *(sse.event(orjson.dumps(event)) for event in events), b"data: [DONE]\n\n"])

    def _blocking_end(self, answer: bytes, usage: dict[str, Any]) -> bytes:
        choices = objects(load(answer).get("choices"))
        if self.untouched or not choices:
            return answer
        message = dict(member(choices[0], "message"))
        written = objects(message.pop("tool_calls", None))
        visible = [one for one, call in zip(written, self.message.calls, strict=False) if not call.hidden]
        message["content"] = texts_joined([*self._said, message.get("content")])
        if visible:
            message["tool_calls"] = visible
        choice = {**choices[0], "message": message, "finish_reason": self._visible_finish()}
        body = set_member(answer, "choices", orjson.dumps([choice]))
        return set_member(body, "usage", orjson.dumps(usage)) if usage else body

    def _visible_finish(self) -> object:
        """Return the finish reason for the client: `tool_calls` only where it sees a call."""
        finish = self.message.finish
        hides_calls = finish == "tool_calls" or (self._hides and finish not in CUT_OFF)
        return "stop" if hides_calls and not self.client_calls() else finish

    @property
    def alias(self) -> tuple[str, str] | None:
        return None

    def ping(self) -> bytes:
        return PING

    def error_events(self, error: GatewayError, *, failed: bool = False) -> bytes:
        return self._settled() + self._flushed() + error_events(error, self._decoder, failed)

    def _flushed(self) -> bytes:
        """Return the held-back events of a message that ends in an error, if the client gets it unchanged."""
        tail, self._tail, self._rewritten = self._tail, Tail(), []
        return bytes(tail) if self.untouched else b""


def _may_go_back(events: bytes) -> bool:
    """Whether there is a call or a text in these events, before which postponed events must be parsed."""
    return any(mark in events for mark in _GO_BACK)


def _tool_message(answered: AnsweredCall) -> dict[str, Any]:
    """Return a tool's result as a message; Chat Completions takes only text from tools."""
    return {"role": "tool", "tool_call_id": answered.call.id, "content": answered.result.text}
