"""Answers of Chat Completions, observed for the record."""

from __future__ import annotations

import re

import orjson

from ... import sse
from ...errors import GatewayError
from ...recorder.records import Facts, ToolUsage
from ..format import Observer
from ..lenient import arguments_of, count, error_text, load, load_answer, member, objects, text
from ..openai_errors import error_object
from ..request import ModelRequest
from ..usage import token_usage


def observer(request: ModelRequest) -> Observer:
    return _ChatObserver(request)


_MARKS = (b'"tool_calls"', b'"error"', b'"function_call"', b"[DONE]")
_FINISHED, _USED = re.compile(rb'"finish_reason"(?!:null)'), re.compile(rb'"usage"(?!:null)')


def _tells(events: bytes) -> bool:
    """Whether anything stands there that can matter to a record. Most events are text."""
    for mark in _MARKS:
        if mark in events:
            return True
    return _FINISHED.search(events) is not None or _USED.search(events) is not None


def _telling(events: bytes) -> int:
    """Where the first such thing stands, -1 where there is none."""
    places = [at for mark in _MARKS if (at := events.find(mark)) >= 0]
    places += [match.start() for pattern in (_FINISHED, _USED) if (match := pattern.search(events))]
    return min(places, default=-1)


class _ChatObserver:
    __slots__ = ("_asked", "_calls", "_open", "_usage", "error", "finished", "message_id", "over")

    def __init__(self, request: ModelRequest) -> None:
        self._asked = request.usage_asked
        self._usage: dict[str, object] = {}
        self._calls: list[_Call] = []
        self._open: dict[tuple[int, int | str], _Call] = {}
        self.message_id = ""
        self.finished = False
        self.over = False
        self.error: str | None = None

    def stream(self, block: bytes) -> bytes:
        if self.message_id and not _tells(block):
            return block
        kept: list[bytes] = []
        dropped = False
        rest = block
        while rest:
            # Events that tell nothing are passed over all at once, up to the next that does.
            at = _telling(rest) if self.message_id else 0
            start = sse.start_of_event(rest, at) if at >= 0 else len(rest)
            if start:
                kept.append(rest[:start])
                rest = rest[start:]
            if rest:
                event = next(sse.events(rest), rest)
                rest = rest[len(event) :]
                if self._drops(event):
                    dropped = True
                else:
                    kept.append(event)
        return b"".join(kept) if dropped else block

    def _drops(self, event: bytes) -> bool:
        """Take in an event; whether it is the one that the client did not ask for."""
        data = sse.data_of(event)
        if data.strip() == b"[DONE]":
            self.finished = self.over = True
            return False
        chunk = load(data)
        self.message_id = self.message_id or text(chunk.get("id"))
        if chunk.get("error"):
            self.error = self.error or error_text(chunk["error"])
        usage = member(chunk, "usage")
        if usage:
            self._usage = usage
        choices = chunk.get("choices")
        for choice in objects(choices):
            self.finished = self.finished or bool(choice.get("finish_reason"))
            self._delta(count(choice.get("index")), member(choice, "delta"))
        return bool(usage) and choices == [] and not self._asked

    def _delta(self, choice: int, delta: dict[str, object]) -> None:
        for call in objects(delta.get("tool_calls")):
            self._call(choice, call.get("index"), text(call.get("id"))).add(call)
        if legacy := member(delta, "function_call"):
            self._call(choice, -1, "").add({"function": legacy})

    def _call(self, choice: int, index: object, call_id: str) -> _Call:
        """The call that a delta belongs to. A new id begins a new one: some providers send no index, or always 0."""
        at = index if isinstance(index, int) else 0
        call = self._open.get((choice, at))
        if call is None or (call_id and call.id and call_id != call.id):
            call = self._open.get((choice, call_id)) if index is None and call_id else None
            if call is None:
                call = _Call()
                self._calls.append(call)
            self._open[choice, at] = call
        if call_id:
            self._open[choice, call_id] = call
        return call

    def blocking(self, body: bytes) -> bool:
        value = load_answer(body)
        if value is None:
            return False
        self.message_id = text(value.get("id"))
        self._usage = member(value, "usage")
        self.error = error_text(value["error"]) if value.get("error") else None
        self.finished = isinstance(value.get("choices"), list)
        for index, choice in enumerate(objects(value.get("choices"))):
            message = member(choice, "message")
            calls = objects(message.get("tool_calls"))
            self._delta(index, {**message, "tool_calls": [{**call, "index": at} for at, call in enumerate(calls)]})
        return True

    def facts(self) -> Facts:
        facts = Facts(
            tool_usages=[
                ToolUsage(message_id=self.message_id, call_id=call.id, tool=call.tool, arguments=call.arguments())
                for call in self._calls
            ]
        )
        if self._usage:
            usage = token_usage(self.message_id, self._usage, "prompt", "completion", partial=not self.finished)
            facts.token_usages.append(usage)
        return facts

    def error_event(self, error: GatewayError) -> bytes:
        return sse.event(orjson.dumps({"error": error_object(error)}))


class _Call:
    """A tool call, put together from its deltas."""

    __slots__ = ("_custom", "_pieces", "id", "tool")

    def __init__(self) -> None:
        self.id = ""
        self.tool = ""
        self._pieces: list[str] = []
        self._custom = False

    def add(self, delta: dict[str, object]) -> None:
        self.id = self.id or text(delta.get("id"))
        if custom := member(delta, "custom"):
            self._custom = True
            self.tool = self.tool or text(custom.get("name"))
            self._pieces.append(text(custom.get("input")))
        function = member(delta, "function")
        self.tool = self.tool or text(function.get("name"))
        self._pieces.append(text(function.get("arguments")))

    def arguments(self) -> object:
        raw = "".join(self._pieces)
        return raw if self._custom else arguments_of(raw)
