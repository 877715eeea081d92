"""OpenAI Responses with injected tools."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
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
from ..splice import find_member, list_member, set_member

PING = b": ping\n\n"
_BEGINNINGS = {"response.created", "response.queued", "response.in_progress"}
_ENDS = {"response.completed", "response.incomplete", "response.failed", "response.cancelled"}


def definitions(tools: Iterable[Tool]) -> bytes:
    """The tools as this format lists them, without the brackets."""
    return b",".join(
        orjson.dumps(
            {
                "type": "function",
                "name": tool.name,
                "description": tool.description,
                "parameters": parameters(tool),
                "strict": False,
            }
        )
        for tool in tools
    )


def begin(body: bytes, names: frozenset[str], tools: bytes, memory: Memory, *, usage_asked: bool) -> Rounds:  # noqa: ARG001 - every format's signature
    names, tools = offered(body, names, tools)
    return ResponsesRounds(body, names, tools, memory)


class ResponsesRounds:
    def __init__(self, body: bytes, names: frozenset[str], tools: bytes, memory: Memory) -> None:
        asked = load(body)
        self._previous = text(asked.get("previous_response_id"))
        self._tool_choice: Any = asked.get("tool_choice") or "auto"
        own_tools = asked.get("tools")
        self._own_tools: list[Any] = own_tools if isinstance(own_tools, list) else []
        self._stored = asked.get("store") is not False
        self._in_conversation = bool(asked.get("conversation"))
        self.body = with_tools(restored(body, memory), tools)
        self.names = names
        self._usages: list[dict[str, Any]] = []
        self._turns: list[Turn] = []
        self._sequence: int | None = None
        self._next_index = 0
        self._first: dict[str, Any] = {}
        self._seen: list[dict[str, Any]] = []
        self._answer: bytes | None = None
        self._last_round = False
        self._begin()

    def _begin(self) -> None:
        self._indexes: dict[int, int | None] = {}
        self._items: dict[int, dict[str, Any]] = {}
        self._end_raw = b""
        self._tail = b""
        self._final: dict[str, Any] = {}

    @property
    def _untouched(self) -> bool:
        """Whether the client gets every item as it came."""
        return not self._usages and None not in self._indexes.values()

    # Streamed

    def stream(self, block: bytes) -> bytes:
        return b"".join([self._event(raw) for raw in sse.events(block)])

    def _event(self, raw: bytes) -> bytes:
        event = load(sse.data_of(raw))
        kind = event.get("type")
        if not isinstance(kind, str):
            if self._end_raw:
                self._tail += raw
                return b""
            return raw
        if kind in _ENDS:
            self._end_raw, self._final = raw, member(event, "response")
            return b""
        if kind in _BEGINNINGS:
            if self._usages:
                return b""
            response = member(event, "response")
            self._first = self._first or response
            return self._numbered(raw, event, response=self._echoed(response))
        index = event.get("output_index")
        if not isinstance(index, int):
            return self._numbered(raw, event)
        item = member(event, "item")
        if index not in self._indexes:
            self._place(index, item)
        if kind == "response.output_item.done":
            self._items[index] = item
        new = self._indexes[index]
        return b"" if new is None else self._numbered(raw, event, output_index=new)

    def _place(self, index: int, item: Mapping[str, Any]) -> None:
        if self._injected(item):
            self._indexes[index] = None
            return
        # Until something is hidden the client sees the provider's own numbers.
        place = index if self._untouched else self._next_index
        self._indexes[index], self._next_index = place, place + 1

    def _numbered(self, raw: bytes, event: Mapping[str, Any], **changes: Any) -> bytes:
        """The event with what is to be another in it, and the sequence number that comes next for the client."""
        number = event.get("sequence_number")
        if isinstance(number, int):
            self._sequence = number if self._sequence is None else self._sequence + 1
            changes["sequence_number"] = self._sequence
        changes = {key: value for key, value in changes.items() if value not in (event.get(key), {})}
        if not changes:
            return raw
        data = sse.data_of(raw)
        for key, value in changes.items():
            if key == "response" and isinstance(event.get(key), dict):
                value = orjson.Fragment(_changed(data, key, event[key], value))
            data = set_member(data, key, orjson.dumps(value))
        return sse.event(data.replace(b"\n", b" "), text(event.get("type")))

    def _echoed(self, response: dict[str, Any]) -> dict[str, Any]:
        """A response object as it repeats what the client asked for, and nothing of what was made of that."""
        echoed = dict(response)
        if isinstance(response.get("tools"), list):
            # As the provider spells them out, if these are they.
            tools = [tool for tool in objects(response["tools"]) if text(tool.get("name")) not in self.names]
            echoed["tools"] = tools if len(tools) == len(self._own_tools) else self._own_tools
        if self._previous and response.get("previous_response_id"):
            echoed["previous_response_id"] = self._previous
        if self._last_round and "tool_choice" in response:
            echoed["tool_choice"] = self._tool_choice
        return echoed

    # Blocking

    def blocking(self, body: bytes) -> None:
        self._answer = body
        self._final = load(body)
        self._items = dict(enumerate(objects(self._final.get("output"))))
        self._indexes = {index: None if self._injected(item) else index for index, item in self._items.items()}

    # Round

    def _injected(self, item: Mapping[str, Any]) -> bool:
        return item.get("type") == "function_call" and text(item.get("name")) in self.names

    def _output(self) -> list[dict[str, Any]]:
        """The items of the round; the end repeats them, and where it does not, they were seen one by one."""
        return objects(self._final.get("output")) or [self._items[index] for index in sorted(self._items)]

    def _visible_output(self) -> list[dict[str, Any]]:
        return [item for item in self._output() if not self._injected(item)]

    def calls(self) -> list[ToolCall]:
        if self._final.get("status") != "completed":
            return []
        return [
            ToolCall(id=text(item.get("call_id")), name=text(item.get("name")), arguments=text(item.get("arguments")))
            for item in self._output()
            if self._injected(item)
        ]

    def own_calls(self) -> list[str]:
        """What the provider ran itself has its output beside it."""
        output = self._output()
        answered = {text(item.get("call_id")) for item in output if text(item.get("type")).endswith("_output")}
        return [
            text(item.get("call_id"))
            for item in output
            if _is_call(item) and not self._injected(item) and text(item.get("call_id")) not in answered
        ]

    def held(self, results: Sequence[Result]) -> Held:
        ending: list[str] = []
        for item in self._visible_output():
            if _is_call(item):
                break
            ending.append(_mark(item))
        return Held(earlier=tuple(self._turns), ending=tuple(ending), results=tuple(results))

    def go_on(self, results: Sequence[Result], *, last: bool) -> None:
        outputs = [_call_output(result) for result in results]
        if self._in_conversation:
            # The provider has added this round's items to the conversation by itself.
            self.body = set_member(self.body, "input", orjson.dumps(outputs))
        else:
            self.body = extended(_listed(self.body), "input", [*self._sent_back(), *outputs])
        if last:
            self.body = set_member(self.body, "tool_choice", b'"none"')
            self._last_round = True
        seen = self._visible_output()
        self._seen += seen
        self._turns.append(Turn(said=tuple(map(_mark, seen)), results=tuple(results)))
        self._usages.append(member(self._final, "usage"))
        self._begin()

    def _sent_back(self) -> list[dict[str, Any]]:
        """The items of the round as input. What is not stored upstream can be named only by its encrypted content.

        Providers refuse a history whose arguments are not JSON; the result tells the model what it wrote.
        """
        return [
            {**item, "arguments": "{}"} if self._injected(item) and not _are_arguments(item.get("arguments")) else item
            for item in self._output()
            if self._stored or item.get("type") != "reasoning" or item.get("encrypted_content")
        ]

    # The end

    def end(self) -> bytes:
        if self._answer is not None and not isinstance(self._final.get("output"), list):
            return self._answer
        response = self._echoed(self._final)
        if not self._untouched:
            response["output"] = [*self._seen, *self._visible_output()]
        if self._usages:
            usage = total([*self._usages, member(self._final, "usage")])
            response |= {"usage": usage} if usage else {}
        if self._answer is not None:
            return _changed(self._answer, None, self._final, response)
        if not self._end_raw:
            return b""
        if self._usages:
            # A stream has told them at its beginning.
            response |= {key: self._first[key] for key in ("id", "created_at") if key in self._first}
        return self._numbered(self._end_raw, load(sse.data_of(self._end_raw)), response=response) + self._tail

    @property
    def alias(self) -> tuple[str, str] | None:
        """The id that the client has seen, and the one that stands for the whole upstream, where they differ.

        A stream names its id before it is known whether there will be another round.
        """
        seen, last = text(self._first.get("id")), text(self._final.get("id"))
        return (seen, last) if seen and last and seen != last else None

    def ping(self) -> bytes:
        return PING


def _changed(text_: bytes, name: str | None, old: Mapping[str, Any], new: Mapping[str, Any]) -> bytes:
    """An object's text, or that of the object in this member, with those members set that have become others."""
    span = find_member(text_, name) if name else None
    body = text_[span[0] : span[1]] if span else text_
    for key, value in new.items():
        if key not in old or old[key] != value:
            body = set_member(body, key, orjson.dumps(value))
    return body


def _is_call(item: Mapping[str, Any]) -> bool:
    """Whether somebody other than the provider has to answer it."""
    return bool(item.get("call_id")) and text(item.get("type")).endswith("_call")


def _are_arguments(written: object) -> bool:
    return ToolCall(id="", name="", arguments=text(written) or "?").parsed() is not None


def _mark(item: Mapping[str, Any]) -> str:
    """By what an item is known again in a later request. Clients leave out ids, and write messages in their own way."""
    match item.get("type", "message"):
        case "message":
            content = item.get("content")
            said = content if isinstance(content, str) else "".join(text(one.get("text")) for one in objects(content))
            return f"message {said}"
        case "reasoning":
            return "reasoning"
        case kind:
            return f"{kind} {item.get('call_id') or item.get('id') or ''}"


def _call_output(result: Result) -> dict[str, Any]:
    output: Any = result.text
    if any(part.image for part in result.parts):
        output = [
            {"type": "input_image", "image_url": f"data:{part.mime_type};base64,{part.image}"}
            if part.image
            else {"type": "input_text", "text": part.text}
            for part in result.parts
            if part.image or part.text
        ]
    return {"type": "function_call_output", "call_id": result.call.id, "output": output}


def _call_and_output(result: Result) -> list[dict[str, Any]]:
    call = result.call
    arguments = call.arguments if _are_arguments(call.arguments) else "{}"
    written = {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": arguments}
    return [written, _call_output(result)]


def _listed(body: bytes) -> bytes:
    """The request with its input as a list, which a bare string is short for."""
    given = load(body).get("input")
    if isinstance(given, str):
        return set_member(body, "input", orjson.dumps([{"type": "message", "role": "user", "content": given}]))
    return body


def restored(body: bytes, memory: Memory) -> bytes:
    """The request with what the client does not know of earlier responses put back.

    Where the provider remembers the turn (`previous_response_id`, a conversation) it has the calls, and lacks only
    the results of the last round.
    """
    if memory.empty:
        return body
    asked = load(body)
    previous = text(asked.get("previous_response_id"))
    if previous and memory.named(previous) != previous:
        body = set_member(body, "previous_response_id", orjson.dumps(memory.named(previous)))
    written = list_member(body, "input")
    items = [load(one) for one in written]
    missing = _missing_outputs if previous or asked.get("conversation") else _missing_items
    added = missing(items, memory)
    if not added:
        return body
    woven: list[bytes] = []
    for index, one in enumerate(written):
        woven += [one, *map(orjson.dumps, added.get(index, ()))]
    woven[:0] = map(orjson.dumps, added.get(-1, ()))
    return set_member(body, "input", b"[" + b",".join(woven) + b"]")


def _missing_outputs(items: Sequence[Mapping[str, Any]], memory: Memory) -> dict[int, list[dict[str, Any]]]:
    """What belongs behind which item: the outputs of the calls that the provider waits for."""
    added: dict[int, list[dict[str, Any]]] = {}
    done: set[int] = set()
    for index, item in enumerate(items):
        kept = memory.held(text(item.get("call_id"))) if text(item.get("type")).endswith("_call_output") else None
        if kept is not None and kept.results and id(kept) not in done:
            done.add(id(kept))
            added[index] = [_call_output(one) for one in kept.results]
    return added


def _missing_items(items: Sequence[Mapping[str, Any]], memory: Memory) -> dict[int, list[dict[str, Any]]]:
    """What belongs behind which item, -1 for before them all: calls and outputs, in the order of the rounds."""
    added: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    helds = [memory.held(text(item.get("call_id"))) if _is_call(item) else None for item in items]
    done: set[int] = set()
    for index, kept in enumerate(helds):
        if kept is None or id(kept) in done:
            continue
        done.add(id(kept))
        for place, turn in zip(_places(items[:index], kept), kept.earlier, strict=False):
            added[place] += [item for one in turn.results for item in _call_and_output(one)]
        last = index
        while last + 1 < len(helds) and helds[last + 1] is kept:
            last += 1
        added[last] += [item for one in kept.results for item in _call_and_output(one)]
    return {place: new for place, new in added.items() if new}


def _places(before: Sequence[Mapping[str, Any]], kept: Held) -> list[int]:
    """Behind which item each earlier round ended; none where the items are not what the client was given.

    Reasoning stays beside what it led to. A client may leave all of it out.
    """
    marks = [_mark(item) for item in before]
    for forgotten in ("", "reasoning"):
        said = [[mark for mark in turn.said if mark != forgotten] for turn in kept.earlier]
        whole = [*(mark for marks_ in said for mark in marks_), *(mark for mark in kept.ending if mark != forgotten)]
        start = len(marks) - len(whole)
        if start >= 0 and marks[start:] == whole:
            return [start - 1 + sum(map(len, said[: index + 1])) for index in range(len(said))]
    return []
