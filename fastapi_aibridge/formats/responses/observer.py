"""Answers of Responses, observed for the record."""

from __future__ import annotations

from typing import Any

import orjson

from ... import sse
from ...errors import GatewayError
from ...recorder.records import Facts, Thought, ToolUsage
from ..format import Observer
from ..lenient import arguments_of, count, error_text, load, load_answer, member, objects, text
from ..request import ModelRequest
from ..usage import token_usage


def observer(request: ModelRequest) -> Observer:  # noqa: ARG001 - every format's signature
    return _ResponsesObserver()


_TELLING = (b'"response"', b"response.output_item.done", b'"error"')
"""What is in every event that says something to record: the response as a whole, a finished item, an error. Deltas
say nothing: the finished item repeats them."""
_LAST = {"response.completed", "response.incomplete", "response.failed", "response.cancelled"}


class _ResponsesObserver:
    __slots__ = ("_items", "_last", "_usage", "error", "finished", "message_id")

    def __init__(self) -> None:
        self._items: list[dict[str, Any]] = []
        self._usage: dict[str, Any] = {}
        self._last = b""
        self.message_id = ""
        self.finished = False
        self.error: str | None = None

    @property
    def over(self) -> bool:
        return self.finished

    def stream(self, block: bytes) -> bytes:
        if b'"sequence_number"' in block:
            self._last = block
        for mark in _TELLING:
            if mark in block:
                for event in sse.events(block):
                    self._event(event)
                break
        return block

    def _event(self, raw: bytes) -> None:
        for mark in _TELLING:
            if mark in raw:
                break
        else:
            return
        event = load(sse.data_of(raw))
        kind = event.get("type")
        if kind == "response.output_item.done":
            self._items.append(member(event, "item"))
        elif kind == "error":
            # The event's own type says nothing; its code does.
            self.error = self.error or error_text(member(event, "error") or {**event, "type": None})
        elif isinstance(kind, str) and kind.startswith("response.") and "response" in event:
            response = member(event, "response")
            self.message_id = text(response.get("id")) or self.message_id
            self._usage = member(response, "usage") or self._usage
            if kind in _LAST:
                self._end(response)

    def _end(self, response: dict[str, Any]) -> None:
        self.finished = True
        self._items = objects(response.get("output")) or self._items
        if response.get("status") == "failed" or response.get("error"):
            self.error = self.error or error_text(response.get("error") or "the response failed")

    def blocking(self, body: bytes) -> bool:
        value = load_answer(body)
        if value is None:
            return False
        self.message_id = text(value.get("id"))
        self._usage = member(value, "usage")
        if "output" in value:
            self._end(value)
        elif value.get("error"):
            self.error = error_text(value["error"])
        return True

    def facts(self) -> Facts:
        facts = Facts()
        for item in self._items:
            kind = text(item.get("type"))
            if kind.endswith("_call") and item.get("call_id"):
                facts.tool_usages.append(self._tool_usage(kind, item))
            elif kind == "reasoning":
                for part in objects(item.get("summary")):
                    if summary := text(part.get("text")):
                        facts.thoughts.append(Thought(source="reasoning_summary", text=summary))
            elif kind == "message" and item.get("phase") == "commentary":
                said = "".join(text(part.get("text")) for part in objects(item.get("content")))
                if said:
                    facts.thoughts.append(Thought(source="commentary", text=said))
        if self._usage:
            usage = token_usage(self.message_id, self._usage, "input", "output", partial=not self.finished)
            facts.token_usages.append(usage)
        return facts

    def _tool_usage(self, kind: str, item: dict[str, Any]) -> ToolUsage:
        """A call that the client is to run. OpenAI's own shell and computer tools have no name but their type."""
        if kind == "function_call":
            arguments = arguments_of(item.get("arguments"))
        elif kind == "custom_tool_call":
            arguments = item.get("input")
        else:
            arguments = next(
                (item[key] for key in ("action", "operation", "actions", "arguments") if key in item), None
            )
        return ToolUsage(
            message_id=self.message_id,
            call_id=text(item.get("call_id")),
            tool=text(item.get("name")) or kind.removesuffix("_call"),
            arguments=arguments,
        )

    def error_event(self, error: GatewayError) -> bytes:
        """An `error` event whose sequence number goes on from the last one relayed."""
        number = -1
        for event in sse.events(self._last):
            number = max(number, count(load(sse.data_of(event)).get("sequence_number")))
        body = {"type": "error", "code": error.code, "message": error.message, "param": None}
        return sse.event(orjson.dumps({**body, "sequence_number": number + 1}), "error")
