"""OpenAI Responses with injected tools: several upstream responses become the one that the client sees."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from ... import sse
from ...errors import GatewayError
from ...tools import Tool
from ..decoder import Decoder
from ..edits import elements, find, find_all, part, replaced, value_at, value_of, with_member
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
from ..splice import find_member, set_member
from ..text import ITEMS, Budget
from ..usage import total
from .going_back import GoingBack, as_taken
from .items import REASONING, call_output, is_call, mark_of, reasoning_keys
from .message import BEGINNINGS, ENDS, ResponseMessage
from .restoring import restored
from .streams import NUMBERED, error_events, numbered_error_events
from .unnamed import UnnamedCalls

PING = b": ping\n\n"
CUT_OFF = ("incomplete", "failed", "cancelled", "in_progress", "queued")
"""Statuses of responses that were cut off or have not ended."""
_TELLING = (b'"response"', b"response.output_item.", b'"error"')


max_tools = 128
"""The most tools that OpenAI accepts in one request."""


def definitions(tools: Iterable[Tool]) -> bytes:
    """Serialize the tools as this format lists them, without the brackets."""
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


def woven(
    body: BodyText,
    names: frozenset[str],
    tools: bytes,
    memory: Memory,
    max_text: int,
    *,
    usage_asked: bool,  # noqa: ARG001 - every format's signature
) -> Steps[ResponsesWeaver]:
    names, tools = yield from offered(body, names, tools, max_tools)
    asked = yield from _read(body)
    body = yield from with_tools((yield from restored(body, memory)), tools)
    return ResponsesWeaver(asked, body, names, max_text)


def _tells(events: bytes) -> bool:
    """Whether these events must be parsed as long as nothing is hidden; deltas pass unparsed."""
    return any(mark in events for mark in _TELLING)


class ResponsesWeaver:
    def __init__(self, asked: Mapping[str, Any], body: BodyText, names: frozenset[str], max_text: int) -> None:
        self.body = body
        self.names = names
        self._previous = text(asked.get("previous_response_id"))
        self._tool_choice: Any = asked.get("tool_choice") or "auto"
        own_tools = asked.get("tools")
        self._own_tools: list[Any] = own_tools if isinstance(own_tools, list) else []
        self._going_back = GoingBack(stored=asked.get("store") is not False)
        self._in_conversation = bool(asked.get("conversation"))
        self._asked_mark = mark_of(asked["last"])
        self._budget = Budget.of_rounds(max_text)
        self._usages: list[dict[str, Any]] = []
        self._turns: list[Turn] = []
        self._reasoning: list[str] = []
        self._sequence: int | None = None
        self._next_index = 0
        self._first: dict[str, Any] = {}
        self._seen: list[dict[str, Any]] = []
        self._answer: bytes | None = None
        self._chosen = False
        self._begin()

    def _begin(self) -> None:
        self.message = ResponseMessage(self._budget, whole=True)
        self._decoder = Decoder(self.message, _tells, every=bool(self._usages), numbered=NUMBERED)
        self._indexes: dict[int, int | None] = {}
        self._hides = False
        self._unnamed = UnnamedCalls()
        self._end_raw = b""
        self._tail = Tail()

    @property
    def untouched(self) -> bool:
        return False  # a response repeats the request, which must be the client's own

    @property
    def _own_numbers(self) -> bool:
        """Whether the client gets every item of the response as received."""
        return not self._usages and not self._hides

    # Streamed

    def stream(self, block: bytes) -> bytes:
        if not self._end_raw and not self._unnamed.waits and self._decoder.passes(block):
            return block
        return b"".join([self._event(raw, self.message.placed(event)) for raw, event in self._decoder.feed(block)])

    def _event(self, raw: bytes, event: Mapping[str, Any]) -> bytes:
        if self._unnamed.waits or self._unnamed.begins(event):
            self._decoder.every = True
            return b"".join([self._passed(*one) for one in self._unnamed.take(raw, event)])
        return self._passed(raw, event)

    def _passed(self, raw: bytes, event: Mapping[str, Any]) -> bytes:
        kind = event.get("type")
        if not isinstance(kind, str):
            if self._end_raw:
                self._tail.add(raw)
                return b""
            return raw
        if kind in ENDS:
            if self._end_raw:  # some servers send the end twice, under two names
                self._tail.add(raw)
            else:
                self._end_raw = raw
            return b""
        if kind in BEGINNINGS:
            if self._usages:
                return b""
            response = member(event, "response")
            self._first = self._first or self.message.begun
            return self._numbered(raw, event, response=self._echoed(response))
        index = event.get("output_index")
        if not isinstance(index, int):
            return self._numbered(raw, event)
        if index not in self._indexes:
            self._place(index, event)
        new = self._indexes[index]
        return b"" if new is None else self._numbered(raw, event, output_index=new)

    def _place(self, index: int, event: Mapping[str, Any]) -> None:
        if len(self._indexes) >= ITEMS:
            raise too_large()
        if self._injected(self._unnamed.named(member(event, "item"), index)):
            self._indexes[index] = None
            self._hides = self._decoder.every = True
            number = event.get("sequence_number")
            if self._sequence is None and isinstance(number, int):
                self._sequence = number - 1
            return
        # Until something is hidden the client sees the provider's own numbers.
        place = index if self._own_numbers else self._next_index
        self._indexes[index], self._next_index = place, place + 1

    def _numbered(self, raw: bytes, event: Mapping[str, Any], **changes: Any) -> bytes:
        """Return the event with these changes, and with the client's next sequence number."""
        if self._sequence is not None and isinstance(event.get("sequence_number"), int):
            self._sequence += 1
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
        """Return a response object that repeats the client's own request, not the gateway's version of it."""
        echoed = dict(response)
        if isinstance(response.get("tools"), list):
            # The client's tools as the provider spells them out, if all are there.
            tools = [tool for tool in objects(response["tools"]) if text(tool.get("name")) not in self.names]
            echoed["tools"] = tools if len(tools) == len(self._own_tools) else self._own_tools
        if self._previous and response.get("previous_response_id"):
            echoed["previous_response_id"] = self._previous
        if self._chosen and "tool_choice" in response:
            echoed["tool_choice"] = self._tool_choice
        return echoed

    # Blocking

    def blocking(self, body: bytes) -> bool:
        self._answer = body
        answer = self._decoder.read(body)
        self._hides = any(self._injected(item) for item in self.message.output())
        return answer is not None

    # Round

    def _injected(self, item: Mapping[str, Any]) -> bool:
        return item.get("type") == "function_call" and text(item.get("name")) in self.names

    def _visible_output(self) -> list[dict[str, Any]]:
        return [item for item in self.message.output() if not self._injected(item)]

    def calls(self) -> list[ToolCall]:
        # A message that was cut off may end in half a call. Some compatible servers send no status.
        if not self.message.complete or self.message.final.get("status") in CUT_OFF:
            return []
        hidden = [item for item in self.message.output() if self._injected(item)]
        if hidden and self._budget.exceeded:
            raise too_large()
        if not self._in_conversation:  # else the provider knows the calls by its own ids
            taken = {*self.client_calls()}
            for item in hidden:
                item["call_id"] = unique_id(text(item.get("call_id")), taken)
        return [
            ToolCall(id=text(item.get("call_id")), name=text(item.get("name")), arguments=_arguments(item))
            for item in hidden
        ]

    def client_calls(self) -> list[str]:
        """Return the ids of the calls for the client. A call that the provider ran itself has its output beside it."""
        output = self.message.output()
        answered = {text(item.get("call_id")) for item in output if text(item.get("type")).endswith("_output")}
        return [
            text(item.get("call_id"))
            for item in output
            if is_call(item) and not self._injected(item) and text(item.get("call_id")) not in answered
        ]

    def _hidden(self, results: Sequence[AnsweredCall]) -> tuple[HiddenCall, ...]:
        given = {result.call.id: orjson.dumps(call_output(result)) for result in results}
        hidden: list[HiddenCall] = []
        place = 0
        for item in self.message.output():
            if not self._injected(item):
                place += 1
            elif (output := given.get(text(item.get("call_id")))) is not None:
                call = orjson.dumps(as_taken(item))
                hidden.append(HiddenCall(id=text(item.get("call_id")), call=call, output=output, place=place))
        return tuple(hidden)

    def held(self, results: Sequence[AnsweredCall]) -> Held:
        ending: list[str] = []
        for item in self._visible_output():
            if is_call(item):
                break
            ending.append(mark_of(item))
        return Held(
            earlier=tuple(self._turns),
            ending=tuple(ending),
            hidden=self._hidden(results),
            order=tuple(self.client_calls()),
        )

    def held_under(self) -> list[str]:
        """Return the ids of the client's calls, and the keys of reasoning that led to hidden ones.

        OpenAI does not accept such reasoning without its calls.
        """
        return [*self.client_calls(), *self._reasoning]

    def go_on(self, results: Sequence[AnsweredCall], *, last: bool) -> Steps[None]:
        outputs = [orjson.dumps(call_output(result)) for result in results]
        if self._in_conversation:
            # The provider has added this round's items to the conversation by itself.
            self.body = yield from with_member(self.body, "input", b"[" + b",".join(outputs) + b"]")
        else:
            body = yield from _listed(self.body)
            stored = self.message.final.get("store") is not False
            written = self._going_back.written(self.message.output(), stored=stored)
            self.body = yield from extended(body, "input", [*written, *outputs])
        choice = "none" if last else forced((yield from value_of(self.body, "tool_choice")), "auto")
        if choice is not None:
            self.body = yield from with_member(self.body, "tool_choice", orjson.dumps(choice))
            self._chosen = True
        seen = self._visible_output()
        self._seen += seen
        self._turns.append(Turn(said=tuple(map(mark_of, seen)), hidden=self._hidden(results)))
        for item in seen:
            if item.get("type") == REASONING:
                self._reasoning += reasoning_keys(item, self._asked_mark)
        self._usages.append(self.message.usage)
        self._begin()

    def take_out(self, refusal: bytes) -> Steps[bool]:
        body = yield from self._going_back.forget(self.body, refusal)
        if body is None:
            return False
        self.body = body
        return True

    # The end

    def end(self) -> bytes:
        final = self.message.final
        if self._answer is not None and not isinstance(final.get("output"), list):
            return self._answer
        response = self._echoed(final)
        if not self._own_numbers:
            response["output"] = [*self._seen, *self._visible_output()]
        if self._usages:
            usage = total([*self._usages, self.message.usage])
            response |= {"usage": usage} if usage else {}
        if self._answer is not None:
            return _changed(self._answer, None, final, response)
        if not self._end_raw:
            return b""
        if self._usages:
            # A stream has named them at its beginning.
            response |= {key: self._first[key] for key in ("id", "created_at") if key in self._first}
        event = load(sse.data_of(self._end_raw))
        return self._numbered(self._end_raw, event, response=response) + bytes(self._tail)

    @property
    def alias(self) -> tuple[str, str] | None:
        """The response id that the client has seen and the last upstream one; None where they are the same.

        A stream names its id before it is known whether there will be another round.
        """
        seen, last = text(self._first.get("id")), text(self.message.final.get("id"))
        return (seen, last) if seen and last and seen != last else None

    def ping(self) -> bytes:
        return PING

    def error_events(self, error: GatewayError, *, failed: bool = False) -> bytes:
        held = b"".join([self._passed(*one) for one in self._unnamed.settled()])
        if self._sequence is None:
            return held + error_events(error, self._decoder, failed)
        return held + numbered_error_events(error, self._sequence + 1, self._first, failed=failed)


_OWN = ("previous_response_id", "tool_choice", "tools", "store", "conversation")


def _read(body: BodyText) -> Steps[dict[str, Any]]:
    """Read the members of the client's request that a weaver needs; the last input item is under `last`."""
    spans = yield from find_all(body, (*_OWN, "input"))
    asked: dict[str, Any] = {name: value_at(body, spans[name]) for name in _OWN if name in spans}
    begin, end = spans.get("input", (0, 0))
    if body.startswith(b"[", begin):
        given = yield from elements((yield from part(body, begin, end)))
        asked["last"] = load(given[-1]) if given else {}
    else:
        asked["last"] = load(b'{"content":%b}' % body[begin:end]) if end else {}
    return asked


def _changed(text_: bytes, name: str | None, old: Mapping[str, Any], new: Mapping[str, Any]) -> bytes:
    """Return the text of an object, or of the object in its member `name`, with the changed members set."""
    span = find_member(text_, name) if name else None
    body = text_[span[0] : span[1]] if span else text_
    for key, value in new.items():
        if key not in old or old[key] != value:
            body = set_member(body, key, orjson.dumps(value))
    return body


def _arguments(item: Mapping[str, Any]) -> str:
    given = item.get("arguments")
    return given if isinstance(given, str) else orjson.dumps(given or {}).decode()


def _listed(body: BodyText) -> Steps[BodyText]:
    """Return the request with its input as a list, for which a bare string is short."""
    span = yield from find(body, "input")
    if span is None or not body.startswith(b'"', span[0]):
        return body
    given = yield from part(body, *span)
    return (yield from replaced(body, *span, b'[{"type":"message","role":"user","content":', given, b"}]"))
