"""A message of Chat Completions, accumulated from a stream or read whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from ...principal import MAX_MODEL
from ...recorder.records import Facts, ToolUsage
from ..lenient import arguments_of, as_object, count, error_text, member, objects, reported, text
from ..rounds import ToolCall
from ..text import Budget, TextBuffer
from ..usage import chat_usage, gone_on, tier_of
from .accumulate import Members, add, built

_MAX_NAME = 1024
"""Characters of a call's id and of its tool's name."""
_AT_ONCE = 1024
"""Tool calls, or deltas of them, that are read from one event or response."""
_LEGACY = -1
"""Index under which a `function_call` is kept; some servers send it beside the same call in `tool_calls`."""
_LAST = ""
"""Key of the call that has begun last, among the keys that are indexes and ids."""
_OF_A_CALL = ("index", "id", "type", "function", "custom")
_OF_A_FUNCTION = ("name", "arguments", "input")


class Call:
    """A tool call, accumulated from its deltas."""

    __slots__ = (
        "_given", "_of_function", "_written", "custom", "extra", "hidden", "id", "number", "placed", "tool",
    )  # fmt: skip

    def __init__(self, budget: Budget) -> None:
        self.id = ""
        self.tool = ""
        self.custom = False
        self.extra: Members = {}
        self._of_function: Members = {}
        self._written = TextBuffer(budget)
        self._given: object = None
        self.hidden = False
        """Whether the call is hidden from the client, because its tool is injected."""
        self.placed = False
        self.number = 0
        """Index of the call: the provider's own, or the client's once the call is `placed`."""

    def add(self, delta: Mapping[str, Any], *, whole: bool) -> None:
        self.id = self.id or text(delta.get("id"))[:_MAX_NAME]
        custom = member(delta, "custom")
        self.custom = self.custom or bool(custom)
        function = custom or member(delta, "function")
        if (name := text(function.get("name"))) and not (self.begun and self.tool):
            # It comes in pieces, is repeated with each delta, or follows the first arguments (SGLang).
            self.tool = (name if name.startswith(self.tool) else self.tool + name)[:_MAX_NAME]
        arguments = function.get("input" if custom else "arguments")
        if isinstance(arguments, str):
            self._written.add(arguments)
        elif arguments is not None:
            # llama.cpp and others send the object itself.
            self._given = arguments
        if whole and len(delta) > 1:
            self.extra |= {key: value for key, value in delta.items() if key not in _OF_A_CALL}
        if whole and len(function) > 1:
            self._of_function |= {key: value for key, value in function.items() if key not in _OF_A_FUNCTION}

    @property
    def begun(self) -> bool:
        """Whether its arguments have begun, so that its name is complete."""
        return bool(self._written) or self._given is not None

    def has_ended(self, delta: Mapping[str, Any]) -> bool:
        """Whether a delta begins another call: it has a name and an object, and this call's object is closed.

        Some servers number all calls 0, with no id or the same one.
        """
        return bool(member(delta, "function").get("name")) and self.is_closed_before(delta)

    def is_closed_before(self, delta: Mapping[str, Any]) -> bool:
        """Whether this call's object is closed and the delta's arguments begin another."""
        begins = text(member(delta, "function").get("arguments")).lstrip().startswith("{")
        return begins and (self._given is not None or self._written.last == "}")

    def recorded(self, message_id: str, budget: Budget) -> ToolUsage:
        raw = str(self._written) if self._given is None else self._given
        arguments, truncated = arguments_of(raw, budget.recorded, cut=self._written.truncated, parsed=not self.custom)
        return ToolUsage(
            message_id=message_id, call_id=self.id, tool=self.tool, arguments=arguments, truncated=truncated
        )

    def whole(self) -> ToolCall:
        """Return the call in the form in which the tool is run."""
        given = self._given
        arguments = str(self._written) if given is None else orjson.dumps(given).decode()
        return ToolCall(id=self.id, name=self.tool, arguments=arguments, extra=self.extra)

    def written(self) -> dict[str, Any]:
        """Return the call as it goes back to the provider."""
        one = self.whole()
        given = self._given if isinstance(self._given, dict) else None
        arguments = one.sent_back() if given is None else given
        function = {"name": self.tool, "arguments": arguments, **self._of_function}
        return {"id": one.id, "type": "function", "function": function, **one.extra}


class ChatMessage:
    """A chat message. `whole` keeps all of its first choice, for a message that may have to go back to the provider."""

    __slots__ = (
        "_open", "budget", "calls", "complete", "error", "finish", "id", "members", "model", "service_tier",
        "stream_complete", "touched", "usage", "whole",
    )  # fmt: skip

    def __init__(self, budget: Budget, *, whole: bool = False) -> None:
        self.budget = budget
        self.whole = whole
        self.id = ""
        self.model = ""
        """The model, as the provider names it."""
        self.service_tier: object = None
        self.complete = False
        self.stream_complete = False
        self.error: str | None = None
        self.usage: dict[str, Any] = {}
        self.calls: list[Call] = []
        self.finish: object = None
        self.members: Members = {}
        """Members of the first choice's message without its calls; kept where the message is `whole`."""
        self.touched: list[Call] = []
        """Calls in the deltas of the last event."""
        self._open: dict[tuple[int, int | str], Call] = {}

    def apply(self, event: Mapping[str, Any]) -> None:
        self.id = self.id or text(event.get("id"))
        if not self.model:
            self.model = text(event.get("model"))[:MAX_MODEL]
        if event.get("error") or event.get("object") == "error":
            self.error = self.error or reported(event) or error_text(None)
        choices = event.get("choices")
        self._take_usage(event, choices)
        self.touched = []
        for place, choice in enumerate(objects(choices)):
            reason = choice.get("finish_reason")
            if reason:
                self.complete = True
                self.finish = reason
                self._take_error(choice)
            delta = member(choice, "delta")
            self._delta(count(choice.get("index")), delta)
            if self.whole and place == 0 and delta:
                add(self.members, {key: value for key, value in delta.items() if key != "tool_calls"}, self.budget)

    def done(self) -> None:
        self.complete = self.stream_complete = True

    def read(self, answer: Mapping[str, Any]) -> None:
        self.id = text(answer.get("id"))
        self.model = text(answer.get("model"))[:MAX_MODEL]
        choices = answer.get("choices")
        self._take_usage(answer, choices)
        self.complete = isinstance(choices, list)
        if answer.get("error") or not self.complete:
            self.error = reported(answer)
        for place, choice in enumerate(objects(choices)):
            message = member(choice, "message")
            if message.get("tool_calls") or message.get("function_call"):
                calls = objects(message.get("tool_calls"))
                self._delta(place, {**message, "tool_calls": [{**call, "index": at} for at, call in enumerate(calls)]})
            self._take_error(choice)
            if place == 0:
                self.finish = choice.get("finish_reason")
                if self.whole:
                    self.members = {key: value for key, value in message.items() if key != "tool_calls"}

    def _take_error(self, choice: Mapping[str, Any]) -> None:
        """Note an error within a choice, as gateways before several providers report it (openrouter.ai/docs)."""
        if choice.get("error") or choice.get("finish_reason") == "error":
            self.error = self.error or reported({"error": choice.get("error") or "the provider failed"})

    def _take_usage(self, event: Mapping[str, Any], choices: object) -> None:
        """Note service tier and usage: at the top, within the choice or its message (Kimi and others), or in `x_groq`
        (Groq).
        """
        usage = member(event, "usage")
        if not usage and isinstance(choices, list) and choices:
            choice = as_object(choices[0])
            usage = member(choice, "usage") or member(choice.get("message") or choice.get("delta"), "usage")
        if usage := usage or member(event.get("x_groq"), "usage"):
            # Some send it with each chunk, and zeros at the end.
            self.usage = gone_on(self.usage, usage)
        self.service_tier = event.get("service_tier") or self.service_tier

    def _delta(self, choice: int, delta: Mapping[str, Any]) -> None:
        calls = objects(delta.get("tool_calls"))
        if len(calls) > _AT_ONCE:
            self.budget.exceeded = True
        for one in calls[:_AT_ONCE]:
            call = self._call(choice, one.get("index"), text(one.get("id")), one)
            call.add(one, whole=self.whole)
            self.touched.append(call)
        if legacy := member(delta, "function_call"):
            self._call(choice, _LEGACY, "", {}).add({"function": legacy}, whole=False)

    def _call(self, choice: int, index: object, call_id: str, delta: Mapping[str, Any]) -> Call:
        """Return the call that a delta belongs to.

        A new id begins a new call: some providers send no index, or always 0. Others number the pieces of one call
        (Nebius, Cerebras): pieces without id and name, under a new index, continue the last call.
        """
        at = index if isinstance(index, int) else 0
        call = self._open.get((choice, at))
        if call is None and not call_id and at != _LEGACY and not member(delta, "function").get("name"):
            last = self._open.get((choice, _LAST))
            if last is not None and not last.is_closed_before(delta):
                return last
        if call is None or (call_id and call.id and call_id != call.id) or call.has_ended(delta):
            again = call_id and (index is None or call is not None)
            call = self._open.get((choice, call_id)) if again else None
            if call is None or call.has_ended(delta):
                call = Call(self.budget)
                call.number = at
                if not self.budget.take(0, 1):
                    return call
                self.calls.append(call)
                self._open[choice, _LAST] = call
            self._open[choice, at] = call
        if call_id:
            self._open[choice, call_id] = call
        return call

    def facts(self) -> Facts:
        facts = Facts(model=self.model, service_tier=tier_of(self.service_tier))
        facts.tool_usages = [call.recorded(self.id, self.budget) for call in self.calls]
        if self.usage:
            facts.token_usages.append(
                chat_usage(self.id, self.usage, partial=not self.complete, service_tier=self.service_tier)
            )
        return facts

    def written(self) -> dict[str, Any]:
        """Return the message as it goes back to the provider, unknown members included."""
        said = {key: value for key, value in built(self.members).items() if value is not None}
        message = {"role": "assistant", "content": None, **said}
        message["content"] = message["content"] or None
        if id_ := member(message, "audio").get("id"):
            message["audio"] = {"id": id_}  # which is all that a request may have of it
        return {**message, "tool_calls": [call.written() for call in self.calls]}
