"""OpenAI Chat Completions with injected tools."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson

from ... import sse
from ..lenient import load, member, objects, text
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

PING = b": ping\n\n"
SEPARATOR = "\n\n"
"""Between the texts of two rounds, which stand in one string here: the other formats have blocks."""
_REASONING = "reasoning_content"
"""Not OpenAI's. DeepSeek and those who follow it want it back with the calls that it led to."""


def definitions(tools: Iterable[Tool]) -> bytes:
    """The tools as this format lists them, without the brackets."""
    return b",".join(
        orjson.dumps(
            {
                "type": "function",
                "function": {"name": tool.name, "description": tool.description, "parameters": parameters(tool)},
            }
        )
        for tool in tools
    )


def begin(body: bytes, names: frozenset[str], tools: bytes, memory: Memory, *, usage_asked: bool) -> Rounds:
    names, tools = offered(body, names, tools)
    return ChatRounds(body, names, tools, memory, usage_asked=usage_asked)


class ChatRounds:
    def __init__(self, body: bytes, names: frozenset[str], tools: bytes, memory: Memory, *, usage_asked: bool) -> None:
        self.body = with_tools(restored(body, memory), tools)
        self.names = names
        self._asked = usage_asked
        self._usages: list[dict[str, Any]] = []
        self._begun = False
        self._first: dict[str, Any] = {}
        self._answer: bytes | None = None
        self._texts: list[str] = []
        self._turns: list[Turn] = []
        self._pending = b""
        self._begin()

    def _begin(self) -> None:
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[_Call] = []
        self._open: dict[int | str, _Call] = {}
        self._next_number = 0
        self._usage: dict[str, Any] = {}
        self._message: dict[str, Any] = {}
        self._finish: object = None
        self._finish_chunk: dict[str, Any] = {}
        self._usage_chunk: dict[str, Any] = {}
        # From the finish on, as it came and as the client gets it where something is hidden from it.
        self._tail: list[tuple[bytes, bytes]] = []

    @property
    def _untouched(self) -> bool:
        """Whether the client gets every byte as it came."""
        return not self._usages and not any(call.hidden for call in self._calls)

    # Streamed

    def stream(self, block: bytes) -> bytes:
        pending, self._pending = self._pending, b""
        return pending + b"".join([self._event(raw) for raw in sse.events(block)])

    def _event(self, raw: bytes) -> bytes:
        data = sse.data_of(raw)
        chunk = load(data)
        if chunk.get("error"):
            raws = [kept for kept, _ in self._tail] if self._untouched else []
            self._tail = []
            return b"".join([*raws, raw])
        if not chunk:
            done = data.strip() == b"[DONE]"
            return self._kept(raw, b"" if done else raw) if done or self._tail else raw
        first, self._begun = not self._begun, True
        if not self._first and text(chunk.get("id")):
            self._first = chunk
        usage = member(chunk, "usage")
        self._usage = usage or self._usage
        choices = objects(chunk.get("choices"))
        if choices:
            return self._choice(raw, chunk, choices[0], first=first)
        if usage:
            self._usage_chunk = chunk
            return self._kept(raw, b"") if self._asked else b""
        if self._tail:
            return self._kept(raw, b"")
        return b"" if self._usages else raw

    def _kept(self, raw: bytes, rewritten: bytes) -> bytes:
        self._tail.append((raw, rewritten))
        return b""

    def _choice(self, raw: bytes, chunk: dict[str, Any], choice: dict[str, Any], *, first: bool) -> bytes:
        delta = dict(member(choice, "delta"))
        calls = objects(delta.get("tool_calls"))
        visible = self._visible(calls)
        said = text(delta.get("content"))
        separator = _separator(self._texts) if said and not self._text else ""
        if said:
            self._text.append(said)
        if reasoning := text(delta.get(_REASONING)):
            self._reasoning.append(reasoning)
        reason = choice.get("finish_reason")
        if reason:
            self._finish, self._finish_chunk = reason, chunk
        if calls and visible != calls:
            delta.pop("tool_calls")
            if visible:
                delta["tool_calls"] = visible
        if separator:
            delta["content"] = separator + said
        if self._usages:
            delta.pop("role", None)
        rewritten = b""
        if any(value for value in delta.values()) or (first and not reason):
            new = {**self._as_first(chunk), "choices": [{**choice, "delta": delta, "finish_reason": None}]}
            rewritten = sse.event(orjson.dumps(new))
        if reason or self._tail:
            return self._kept(raw, rewritten)
        return raw if self._untouched else rewritten

    def _visible(self, deltas: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The deltas of the client's own calls, numbered as the client sees them; the others are put together."""
        visible = []
        for delta in deltas:
            call = self._call(delta)
            call.add(delta)
            if not call.hidden:
                visible.append(delta if call.number == delta.get("index") else {**delta, "index": call.number})
        return visible

    def _call(self, delta: dict[str, Any]) -> _Call:
        """The call that a delta belongs to. A new id begins a new one: some providers send no index, or always 0."""
        index, call_id = delta.get("index"), text(delta.get("id"))
        at = index if isinstance(index, int) else 0
        call = self._open.get(at)
        if call is None or (call_id and call.id and call_id != call.id):
            call = self._open.get(call_id) if call_id else None
            if call is None:
                call = self._new_call(delta, at)
            self._open[at] = call
        if call_id:
            self._open[call_id] = call
        return call

    def _new_call(self, delta: dict[str, Any], at: int) -> _Call:
        call = _Call(hidden=text(member(delta, "function").get("name")) in self.names)
        if not call.hidden:
            # Until something is hidden the client sees the provider's own numbers.
            call.number = max(at, self._next_number) if self._untouched else self._next_number
            self._next_number = call.number + 1
        self._calls.append(call)
        return call

    def _as_first(self, chunk: dict[str, Any]) -> dict[str, Any]:
        """The chunk as one of the first round's message."""
        return {**chunk, **{key: self._first[key] for key in ("id", "created") if key in self._first}}

    # Blocking

    def blocking(self, body: bytes) -> None:
        self._answer = body
        value = load(body)
        self._usage = member(value, "usage")
        choices = objects(value.get("choices"))
        choice = choices[0] if choices else {}
        self._finish = choice.get("finish_reason")
        self._message = member(choice, "message")
        self._text = [said] if (said := text(self._message.get("content"))) else []
        self._reasoning = [text(self._message.get(_REASONING))]
        for written in objects(self._message.get("tool_calls")):
            call = _Call(hidden=text(member(written, "function").get("name")) in self.names)
            call.add(written)
            self._calls.append(call)

    # Round

    def calls(self) -> list[ToolCall]:
        # A message that was cut off (`length`) may hold half a call. Some providers say `stop` where they mean calls.
        if self._finish not in ("tool_calls", "stop", "function_call"):
            return []
        return [call.whole() for call in self._calls if call.hidden]

    def own_calls(self) -> list[str]:
        return [call.id for call in self._calls if not call.hidden]

    def held(self, results: Sequence[Result]) -> Held:
        return Held(earlier=tuple(self._turns), results=tuple(results))

    def go_on(self, results: Sequence[Result], *, last: bool) -> None:
        said = "".join(self._text)
        message = _assistant(said, results)
        if reasoning := "".join(self._reasoning):
            message[_REASONING] = reasoning
        self.body = extended(self.body, "messages", [message, *map(_tool_message, results)])
        if last:
            self.body = set_member(self.body, "tool_choice", b'"none"')
        if said:
            self._texts.append(said)
        self._turns.append(Turn(said=(said,) if said else (), results=tuple(results)))
        self._usages.append(self._usage)
        self._pending = b"".join(rewritten for _, rewritten in self._tail)
        self._begin()

    # The end

    def end(self) -> bytes:
        usage = total([*self._usages, self._usage])
        if self._answer is not None:
            return self._blocking_end(self._answer, usage)
        if self._untouched or not self._finish_chunk:
            return b"".join(raw for raw, _ in self._tail)
        choice = {
            **objects(self._finish_chunk["choices"])[0],
            "delta": {},
            "finish_reason": self._visible_finish(),
        }
        finish = {**self._as_first(self._finish_chunk), "choices": [choice]}
        if member(self._finish_chunk, "usage"):
            finish["usage"] = usage
        events = [finish]
        if self._asked and self._usage_chunk:
            events.append({**self._as_first(self._usage_chunk), "usage": usage})
        late = [rewritten for _, rewritten in self._tail]
        return b"".join([*late, *(sse.event(orjson.dumps(event)) for event in events), b"data: [DONE]\n\n"])

    def _blocking_end(self, answer: bytes, usage: dict[str, Any]) -> bytes:
        choices = objects(load(answer).get("choices"))
        if self._untouched or not choices:
            return answer
        written = objects(self._message.get("tool_calls"))
        own = [one for one, call in zip(written, self._calls, strict=True) if not call.hidden]
        choice = dict(choices[0])
        message = {key: value for key, value in self._message.items() if key != "tool_calls"}
        message["content"] = joined([*self._texts, *self._text]) or None
        if own:
            message["tool_calls"] = own
        choice |= {"message": message, "finish_reason": self._visible_finish()}
        body = set_member(answer, "choices", orjson.dumps([choice]))
        return set_member(body, "usage", orjson.dumps(usage)) if usage else body

    def _visible_finish(self) -> object:
        """`tool_calls` only where the client sees one."""
        return "stop" if self._finish == "tool_calls" and not self.own_calls() else self._finish

    @property
    def alias(self) -> tuple[str, str] | None:
        return None

    def ping(self) -> bytes:
        return PING


class _Call:
    """A call, put together from its deltas."""

    __slots__ = ("_extra", "_name", "_pieces", "hidden", "id", "number")

    def __init__(self, *, hidden: bool) -> None:
        self.hidden = hidden
        self.number = 0
        """Which one of its calls it is to the client."""
        self.id = ""
        self._name = ""
        self._pieces: list[str] = []
        self._extra: dict[str, Any] = {}

    def add(self, delta: Mapping[str, Any]) -> None:
        self.id = self.id or text(delta.get("id"))
        function = member(delta, "function")
        self._name = self._name or text(function.get("name"))
        self._pieces.append(text(function.get("arguments")))
        self._extra |= {key: value for key, value in delta.items() if key not in ("index", "id", "type", "function")}

    def whole(self) -> ToolCall:
        return ToolCall(id=self.id, name=self._name, arguments="".join(self._pieces), extra=self._extra)


def joined(texts: Sequence[str]) -> str:
    """The texts of several rounds as the client sees them."""
    whole = ""
    for index, said in enumerate(texts):
        whole += _separator(texts[:index]) + said
    return whole


def _separator(before: Sequence[str]) -> str:
    return SEPARATOR if before and not before[-1].endswith("\n") else ""


def _assistant(said: str, results: Iterable[Result]) -> dict[str, Any]:
    return {"role": "assistant", "content": said or None, "tool_calls": [_tool_call(one.call) for one in results]}


def _tool_call(call: ToolCall) -> dict[str, Any]:
    # Providers refuse a history whose arguments are not JSON; the result tells the model what it wrote.
    arguments = call.arguments if call.parsed() is not None and call.arguments.strip() else "{}"
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}, **call.extra}


def _tool_message(result: Result) -> dict[str, Any]:
    """Chat takes text only from tools."""
    return {"role": "tool", "tool_call_id": result.call.id, "content": result.text}


def restored(body: bytes, memory: Memory) -> bytes:
    """The request with what the client does not know of earlier responses put back."""
    if memory.empty:
        return body
    woven: list[bytes] = []
    done: list[Held] = []
    for written in list_member(body, "messages"):
        message = load(written) if b'"tool_calls"' in written else {}
        calls = objects(message.get("tool_calls"))
        kept = next((found for call in calls if (found := memory.held(text(call.get("id"))))), None)
        if kept is None or any(kept is one for one in done):
            woven.append(written)
        else:
            woven += map(orjson.dumps, _unwoven(message, calls, kept))
            done.append(kept)
    return set_member(body, "messages", b"[" + b",".join(woven) + b"]") if done else body


def _unwoven(message: dict[str, Any], calls: list[dict[str, Any]], kept: Held) -> Iterator[dict[str, Any]]:
    """The messages that the model wrote, of which the client knows one that is made of all."""
    before = joined([said for turn in kept.earlier for said in turn.said])
    whole = message.get("content")
    last = whole.removeprefix(before) if isinstance(whole, str) and whole.startswith(before) else None
    known = not before or last is not None
    for turn in kept.earlier:
        yield _assistant("".join(turn.said) if known else "", turn.results)
        yield from map(_tool_message, turn.results)
    content = whole if not before or last is None else last.removeprefix(_separator([before])) or None
    yield {**message, "content": content, "tool_calls": [*calls, *(_tool_call(one.call) for one in kept.results)]}
    yield from map(_tool_message, kept.results)
