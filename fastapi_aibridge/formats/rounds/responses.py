"""OpenAI Responses with injected tools."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from .. import sse
from ..format import load, member, objects, text
from ..splice import find_member, set_member
from .rounds import Memory, Result, Rounds, Tool, ToolCall, extended, total, with_tools

PING = b": ping\n\n"
_BEGINNINGS = {"response.created", "response.queued", "response.in_progress"}
_ENDS = {"response.completed", "response.incomplete", "response.failed"}


def definitions(tools: Iterable[Tool]) -> bytes:
    """The tools as this format lists them, without the brackets."""
    return b",".join(
        orjson.dumps(
            {
                "type": "function",
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.input_schema,
                "strict": False,
            }
        )
        for tool in tools
    )


def fits(request: Mapping[str, Any]) -> bool:
    """Whether tools can be injected: a response in the background is over here before it has begun."""
    return request.get("background") is not True


def begin(body: bytes, names: frozenset[str], tools: bytes, memory: Memory, *, usage_asked: bool) -> Rounds:  # noqa: ARG001 - every format's signature
    return ResponsesRounds(body, names, tools, memory)


class ResponsesRounds:
    def __init__(self, body: bytes, names: frozenset[str], tools: bytes, memory: Memory) -> None:
        span = find_member(body, "tools")
        self._own_tools = body[span[0] : span[1]] if span else b"[]"
        value = load(body)
        previous = text(value.get("previous_response_id"))
        if previous and memory.named(previous) != previous:
            body = set_member(body, "previous_response_id", orjson.dumps(memory.named(previous)))
        self.body = with_tools(_with_held(body, memory), tools)
        self._stored = value.get("store") is not False
        self._in_conversation = bool(value.get("conversation"))
        self._names = names
        self._usages: list[dict[str, Any]] = []
        self._sequence = 0
        self._next_index = 0
        self._id: str | None = None
        self._seen: list[dict[str, Any]] = []
        self._answer = b""
        self._begin()

    def _begin(self) -> None:
        self._indexes: dict[int, int | None] = {}
        self._items: dict[int, dict[str, Any]] = {}
        self._last: dict[str, Any] = {}
        self._final: dict[str, Any] = {}

    # Streamed

    def stream(self, block: bytes) -> bytes:
        return b"".join([self._event(raw) for raw in sse.events(block)])

    def _event(self, raw: bytes) -> bytes:
        event = load(sse.data_of(raw))
        kind = event.get("type")
        if not isinstance(kind, str):
            return raw
        if kind in _ENDS:
            self._last, self._final = event, member(event, "response")
            return b""
        if kind in _BEGINNINGS:
            if self._usages:
                return b""
            response = member(event, "response")
            self._id = self._id or text(response.get("id")) or None
            return self._numbered(
                raw, {**event, "response": self._without_tools(response)}, changed="tools" in response
            )
        index = event.get("output_index")
        if not isinstance(index, int):
            return self._numbered(raw, event)
        if kind == "response.output_item.added":
            injected = self._injected(member(event, "item"))
            self._indexes[index] = None if injected else self._next_index
            self._next_index += not injected
        elif kind == "response.output_item.done":
            self._items[index] = member(event, "item")
        new = self._indexes.get(index)
        if new is None:
            return b""
        return self._numbered(raw, event if new == index else {**event, "output_index": new}, changed=new != index)

    def _numbered(self, raw: bytes, event: dict[str, Any], *, changed: bool = False) -> bytes:
        """The event with the sequence number that comes next for the client."""
        number, self._sequence = self._sequence, self._sequence + 1
        if not changed and event.get("sequence_number") == number:
            return raw
        return sse.event(orjson.dumps({**event, "sequence_number": number}), text(event.get("type")))

    def _without_tools(self, response: dict[str, Any]) -> dict[str, Any]:
        """A response object that repeats the tools which the client sent, not ours."""
        return {**response, "tools": orjson.Fragment(self._own_tools)} if "tools" in response else response

    # Blocking

    def blocking(self, body: bytes) -> None:
        self._answer = body
        self._final = load(body)
        self._last = {"type": "response.completed"}
        self._items = dict(enumerate(objects(self._final.get("output"))))

    # Round

    def _injected(self, item: Mapping[str, Any]) -> bool:
        return item.get("type") == "function_call" and item.get("name") in self._names

    def _output(self) -> list[dict[str, Any]]:
        """The items of the round; the end repeats them, and where it does not, they were seen one by one."""
        return objects(self._final.get("output")) or [self._items[index] for index in sorted(self._items)]

    def calls(self) -> list[ToolCall]:
        if self._final.get("status") != "completed":
            return []
        return [
            ToolCall(id=text(item.get("call_id")), name=text(item.get("name")), arguments=text(item.get("arguments")))
            for item in self._output()
            if self._injected(item)
        ]

    def own_calls(self) -> list[str]:
        return [
            text(item.get("call_id"))
            for item in self._output()
            if item.get("call_id") and text(item.get("type")).endswith("_call") and not self._injected(item)
        ]

    def go_on(self, results: Sequence[Result], *, last: bool) -> None:
        outputs = [_call_output(result) for result in results]
        if self._in_conversation:
            # The provider has added this round's items to the conversation by itself.
            self.body = set_member(self.body, "input", orjson.dumps(outputs))
        else:
            self.body = extended(_listed(self.body), "input", [*self._sent_back(), *outputs])
        if last:
            self.body = set_member(self.body, "tool_choice", b'"none"')
        self._seen += [item for item in self._output() if not self._injected(item)]
        self._usages.append(member(self._final, "usage"))
        self._begin()

    def _sent_back(self) -> list[dict[str, Any]]:
        """The items of the round as input. What is not stored upstream can be named only by its encrypted content."""
        return [
            item
            for item in self._output()
            if self._stored or item.get("type") != "reasoning" or item.get("encrypted_content")
        ]

    # The end

    def end(self) -> bytes:
        usage = total([*self._usages, member(self._final, "usage")])
        output = [*self._seen, *(item for item in self._output() if not self._injected(item))]
        if self._answer:
            return self._blocking_end(usage, output)
        if not self._last:
            return b""
        response = {**self._without_tools(self._final), "output": output}
        if self._usages:
            response["usage"] = usage
        if self._id is not None:
            response["id"] = self._id
        return self._numbered(b"", {**self._last, "response": response}, changed=True)

    def _blocking_end(self, usage: dict[str, Any], output: list[dict[str, Any]]) -> bytes:
        body = self._answer
        if "tools" in self._final:
            body = set_member(body, "tools", self._own_tools)
        if self._usages or len(output) != len(self._output()):
            body = set_member(body, "output", orjson.dumps(output))
        return set_member(body, "usage", orjson.dumps(usage)) if self._usages else body

    @property
    def alias(self) -> tuple[str, str] | None:
        """The id that the client has seen, and the one that stands for the whole upstream, where they differ.

        A stream names its id before it is known whether there will be another round.
        """
        last = text(self._final.get("id"))
        return (self._id, last) if self._id and last and self._id != last else None

    def ping(self) -> bytes:
        return PING


def _call_output(result: Result) -> dict[str, Any]:
    output: Any = result.text
    if any(part.image for part in result.parts):
        output = [
            {"type": "input_image", "image_url": f"data:{part.mime_type};base64,{part.image}"}
            if part.image
            else {"type": "input_text", "text": part.text}
            for part in result.parts
        ]
    return {"type": "function_call_output", "call_id": result.call.id, "output": output}


def _listed(body: bytes) -> bytes:
    """The request with its input as a list, which a bare string is short for."""
    given = load(body).get("input")
    if isinstance(given, str):
        return set_member(body, "input", orjson.dumps([{"type": "message", "role": "user", "content": given}]))
    return body


def _with_held(body: bytes, memory: Memory) -> bytes:
    """The request with injected calls of earlier turns put back beside the client's calls of those turns.

    Where the provider remembers the turn (`previous_response_id`, a conversation) it has the calls, and lacks only
    their results.
    """
    value = load(body)
    items = objects(value.get("input"))
    remembered = bool(value.get("previous_response_id") or value.get("conversation"))
    woven: list[dict[str, Any]] = []
    done: set[str] = set()
    for item in items:
        woven.append(item)
        wanted = text(item.get("type")).endswith("_call_output") if remembered else item.get("type") == "function_call"
        kept = memory.held(text(item.get("call_id"))) if wanted else None
        if kept is None:
            continue
        for one in kept.results:
            if one.call.id in done:
                continue
            done.add(one.call.id)
            if not remembered:
                arguments = one.call.arguments or "{}"
                woven.append(
                    {"type": "function_call", "call_id": one.call.id, "name": one.call.name, "arguments": arguments}
                )
            woven.append(_call_output(one))
    return set_member(body, "input", orjson.dumps(woven)) if done else body
