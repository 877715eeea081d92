"""OpenAI Chat Completions with injected tools."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from .. import sse
from ..format import count, load, member, objects, text
from ..splice import set_member
from .rounds import Memory, Result, Rounds, Tool, ToolCall, extended, total, with_tools

PING = b": ping\n\n"
SEPARATOR = "\n\n"
"""Between the texts of two rounds, which stand in one string here: the other formats have blocks."""


def definitions(tools: Iterable[Tool]) -> bytes:
    """The tools as this format lists them, without the brackets."""
    return b",".join(
        orjson.dumps(
            {
                "type": "function",
                "function": {"name": tool.name, "description": tool.description, "parameters": tool.input_schema},
            }
        )
        for tool in tools
    )


def fits(request: Mapping[str, Any]) -> bool:
    """Whether tools can be injected: several choices cannot go round together, `functions` excludes `tools`."""
    return count(request.get("n")) <= 1 and not request.get("functions")


def begin(body: bytes, names: frozenset[str], tools: bytes, memory: Memory, *, usage_asked: bool) -> Rounds:
    return ChatRounds(body, names, tools, memory, usage_asked=usage_asked)


class ChatRounds:
    def __init__(self, body: bytes, names: frozenset[str], tools: bytes, memory: Memory, *, usage_asked: bool) -> None:
        self.body = with_tools(_with_held(body, memory), tools)
        self._names = names
        self._asked = usage_asked
        self._usages: list[dict[str, Any]] = []
        self._first: dict[str, Any] = {}
        self._answer = b""
        self._texts: list[str] = []
        self._own = 0
        self._begin()

    def _begin(self) -> None:
        self._round_text: list[str] = []
        self._calls: dict[int, dict[str, Any]] = {}
        self._indexes: dict[int, int | None] = {}
        self._usage: dict[str, Any] = {}
        self._message: dict[str, Any] = {}
        self._finish: object = None
        self._finish_chunk: dict[str, Any] = {}
        self._usage_chunk: dict[str, Any] = {}
        self._tail: list[bytes] = []
        self._split = False

    # Streamed

    def stream(self, block: bytes) -> bytes:
        return b"".join([self._event(raw) for raw in sse.events(block)])

    def _event(self, raw: bytes) -> bytes:
        data = sse.data_of(raw)
        if data == b"[DONE]":
            self._tail.append(raw)
            return b""
        chunk = load(data)
        if not chunk or chunk.get("error"):
            return raw
        first = not self._first
        self._first = self._first or chunk
        if usage := member(chunk, "usage"):
            self._usage = usage
        choices = objects(chunk.get("choices"))
        if not choices:
            if usage:
                self._usage_chunk = chunk
                if self._asked:
                    self._tail.append(raw)
                return b""
            return raw if first or not self._usages else b""
        return self._choice(raw, chunk, choices[0], first=first)

    def _choice(self, raw: bytes, chunk: dict[str, Any], choice: dict[str, Any], *, first: bool) -> bytes:
        delta = dict(member(choice, "delta"))
        calls = objects(delta.get("tool_calls"))
        visible = self._visible(calls)
        said = text(delta.get("content"))
        separator = SEPARATOR if said and not self._round_text and self._spoken() else ""
        if said:
            self._round_text.append(said)
        if reason := choice.get("finish_reason"):
            self._finish, self._finish_chunk = reason, chunk
            if not said and not visible:
                self._tail.append(raw)
                return b""
            self._split = True
        later = bool(self._usages)
        if not later and visible == calls and not reason:
            return raw
        if calls:
            delta.pop("tool_calls")
            if visible:
                delta["tool_calls"] = visible
        if separator:
            delta["content"] = separator + said
        if later:
            delta.pop("role", None)
        if not first and not any(value for value in delta.values()):
            return b""
        new = {**self._as_first(chunk), "choices": [{**choice, "delta": delta, "finish_reason": None}]}
        return sse.event(orjson.dumps(new))

    def _visible(self, calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The deltas of the client's own calls, numbered as the client sees them; the others are put together."""
        visible = []
        for call in calls:
            index = count(call.get("index"))
            kept = self._calls.get(index)
            if kept is None or (call.get("id") and kept["id"] and call["id"] != kept["id"]):
                if kept is not None:
                    index = max(self._calls) + 1
                kept = self._calls[index] = {"id": "", "name": "", "arguments": []}
                injected = member(call, "function").get("name") in self._names
                self._indexes[index] = None if injected else self._own
                self._own += not injected
            kept["id"] = kept["id"] or text(call.get("id"))
            function = member(call, "function")
            kept["name"] = kept["name"] or text(function.get("name"))
            kept["arguments"].append(text(function.get("arguments")))
            number = self._indexes[index]
            if number is not None:
                visible.append(call if number == call.get("index") else {**call, "index": number})
        return visible

    def _as_first(self, chunk: dict[str, Any]) -> dict[str, Any]:
        """The chunk as one of the first round's message."""
        return {**chunk, **{key: self._first[key] for key in ("id", "created") if key in self._first}}

    def _spoken(self) -> bool:
        return bool(self._texts) and not self._texts[-1].endswith("\n")

    # Blocking

    def blocking(self, body: bytes) -> None:
        self._answer = body
        value = load(body)
        self._first = self._first or value
        self._usage = member(value, "usage")
        choices = objects(value.get("choices"))
        choice = choices[0] if choices else {}
        self._finish = choice.get("finish_reason")
        self._message = member(choice, "message")
        self._round_text = [said] if (said := text(self._message.get("content"))) else []
        for index, call in enumerate(objects(self._message.get("tool_calls"))):
            function = member(call, "function")
            self._calls[index] = {
                "id": text(call.get("id")),
                "name": text(function.get("name")),
                "arguments": [text(function.get("arguments"))],
            }
            self._indexes[index] = None if function.get("name") in self._names else index

    # Round

    def calls(self) -> list[ToolCall]:
        # A message that was cut off (`length`) may hold half a call. Some providers say `stop` where they mean calls.
        if self._finish not in ("tool_calls", "stop", "function_call"):
            return []
        return [
            ToolCall(id=call["id"], name=call["name"], arguments="".join(call["arguments"]))
            for index, call in self._calls.items()
            if self._indexes[index] is None
        ]

    def own_calls(self) -> list[str]:
        return [call["id"] for index, call in self._calls.items() if self._indexes[index] is not None]

    def go_on(self, results: Sequence[Result], *, last: bool) -> None:
        said = "".join(self._round_text)
        turn: list[dict[str, Any]] = [
            {"role": "assistant", "content": said or None, "tool_calls": [_tool_call(one.call) for one in results]}
        ]
        turn += [_tool_message(result) for result in results]
        self.body = extended(self.body, "messages", turn)
        if last:
            self.body = set_member(self.body, "tool_choice", b'"none"')
        if said:
            self._texts.append(said)
        self._usages.append(self._usage)
        self._begin()

    # The end

    def end(self) -> bytes:
        usage = total([*self._usages, self._usage])
        if self._answer:
            return self._blocking_end(usage)
        reason = self._visible_finish()
        untouched = not self._usages and reason == self._finish and not self._split
        if untouched or not self._finish_chunk:
            return b"".join(self._tail)
        choice = {**objects(self._finish_chunk["choices"])[0], "delta": {}, "finish_reason": reason}
        finish = {**self._as_first(self._finish_chunk), "choices": [choice]}
        if member(self._finish_chunk, "usage"):
            finish["usage"] = usage
        events = [finish]
        if self._asked and self._usage_chunk:
            events.append({**self._as_first(self._usage_chunk), "usage": usage})
        return b"".join([*(sse.event(orjson.dumps(event)) for event in events), b"data: [DONE]\n\n"])

    def _blocking_end(self, usage: dict[str, Any]) -> bytes:
        own = [call for index, call in enumerate(objects(self._message.get("tool_calls"))) if self._own_call(index)]
        if not self._usages and len(own) == len(self._calls):
            return self._answer
        choice = dict(objects(load(self._answer).get("choices"))[0])
        message = {key: value for key, value in self._message.items() if key != "tool_calls"}
        message["content"] = SEPARATOR.join([*self._texts, *self._round_text]) or None
        if own:
            message["tool_calls"] = own
        choice |= {"message": message, "finish_reason": self._visible_finish()}
        body = set_member(self._answer, "choices", orjson.dumps([choice]))
        return set_member(body, "usage", orjson.dumps(usage)) if usage else body

    def _own_call(self, index: int) -> bool:
        return self._indexes.get(index) is not None

    def _visible_finish(self) -> object:
        """`tool_calls` only where the client sees one."""
        return "stop" if self._finish == "tool_calls" and not self.own_calls() else self._finish

    @property
    def alias(self) -> tuple[str, str] | None:
        return None

    def ping(self) -> bytes:
        return PING


def _tool_call(call: ToolCall) -> dict[str, Any]:
    # Providers refuse a history whose arguments are not JSON; the result tells the model what it wrote.
    arguments = call.arguments if call.parsed() is not None and call.arguments.strip() else "{}"
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _tool_message(result: Result) -> dict[str, Any]:
    """Chat takes text only from tools."""
    return {"role": "tool", "tool_call_id": result.call.id, "content": result.text}


def _with_held(body: bytes, memory: Memory) -> bytes:
    """The request with injected calls of earlier turns put back beside the client's calls of those turns."""
    messages = objects(load(body).get("messages"))
    woven: list[dict[str, Any]] = []
    changed = False
    for message in messages:
        calls = objects(message.get("tool_calls"))
        kept = next((found for call in calls if (found := memory.held(text(call.get("id"))))), None)
        if kept is None:
            woven.append(message)
            continue
        woven.append({**message, "tool_calls": [*calls, *(_tool_call(one.call) for one in kept.results)]})
        woven += [_tool_message(one) for one in kept.results]
        changed = True
    return set_member(body, "messages", orjson.dumps(woven)) if changed else body
