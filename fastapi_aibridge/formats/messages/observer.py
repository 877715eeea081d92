"""Answers of Messages, observed for the record."""

from __future__ import annotations

from typing import Any

import orjson

from ... import sse
from ...errors import GatewayError
from ...recorder.records import Facts, Thought, TokenUsage, ToolUsage
from ..anthropic_errors import error_body
from ..format import Observer
from ..lenient import arguments_of, count, counts, error_text, load, load_answer, member, objects, text
from ..request import ModelRequest


def observer(request: ModelRequest) -> Observer:  # noqa: ARG001 - every format's signature
    return _MessagesObserver()


_TELLING = (
    b'"message_start"',
    b'"content_block_start"',
    b'"input_json_delta"',
    b'"thinking_delta"',
    b'"message_delta"',
    b'"message_stop"',
    b'"error"',
)
"""Event and delta types that say something to record. Most bytes of most streams are text deltas, which do not."""


class _MessagesObserver:
    __slots__ = ("_blocks", "_open", "_usage", "error", "finished", "message_id")

    def __init__(self) -> None:
        self._usage: dict[str, Any] = {}
        self._blocks: list[_Block] = []
        self._open: dict[int, _Block] = {}
        self.message_id = ""
        self.finished = False
        self.error: str | None = None

    @property
    def over(self) -> bool:
        return self.finished

    def stream(self, block: bytes) -> bytes:
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
        if kind == "content_block_delta":
            if block := self._open.get(count(event.get("index"))):
                block.add(member(event, "delta"))
        elif kind == "content_block_start":
            block = self._open[count(event.get("index"))] = _Block(member(event, "content_block"))
            self._blocks.append(block)
        elif kind == "message_start":
            message = member(event, "message")
            self.message_id = text(message.get("id"))
            self._usage = dict(member(message, "usage"))
        elif kind == "message_delta":
            # Cumulative counts: those of the last delta hold, the others stay as message_start gave them.
            self._usage |= {key: value for key, value in member(event, "usage").items() if value is not None}
        elif kind == "message_stop":
            self.finished = True
        elif kind == "error":
            self.error = self.error or error_text(event.get("error"))

    def blocking(self, body: bytes) -> bool:
        value = load_answer(body)
        if value is None:
            return False
        if value.get("type") == "error" or "error" in value:
            self.error = error_text(value.get("error"))
            return True
        self.message_id = text(value.get("id"))
        self._usage = member(value, "usage")
        self._blocks = [_Block(block) for block in objects(value.get("content"))]
        self.finished = isinstance(value.get("content"), list)
        return True

    def facts(self) -> Facts:
        facts = Facts()
        for block in self._blocks:
            if block.kind == "tool_use":
                facts.tool_usages.append(
                    ToolUsage(
                        message_id=self.message_id, call_id=block.id, tool=block.tool, arguments=block.arguments()
                    )
                )
            elif block.kind == "thinking" and (thought := block.thought()):
                facts.thoughts.append(Thought(source="thinking", text=thought))
        if self._usage:
            facts.token_usages.append(self._token_usage())
        return facts

    def _token_usage(self) -> TokenUsage:
        usage = self._usage
        extra = counts(member(usage, "cache_creation"), _CACHE_CREATION)
        extra |= counts(member(usage, "server_tool_use"), _SERVER_TOOLS)
        extra |= counts(member(usage, "output_tokens_details"), {"thinking_tokens": "reasoning"})
        return TokenUsage(
            message_id=self.message_id,
            input_tokens=count(usage.get("input_tokens")),
            output_tokens=count(usage.get("output_tokens")),
            cache_read_tokens=count(usage.get("cache_read_input_tokens")),
            cache_write_tokens=count(usage.get("cache_creation_input_tokens")),
            extra=extra,
            partial=not self.finished,
        )

    def error_event(self, error: GatewayError) -> bytes:
        return sse.event(orjson.dumps(error_body(error)), "error")


_CACHE_CREATION = {"ephemeral_5m_input_tokens": "cache_creation_5m", "ephemeral_1h_input_tokens": "cache_creation_1h"}
_SERVER_TOOLS = {"web_search_requests": "web_search_requests", "web_fetch_requests": "web_fetch_requests"}


class _Block:
    """A content block, put together from its deltas. Text is not kept: it is no fact to record."""

    __slots__ = ("_input", "_pieces", "id", "kind", "tool")

    def __init__(self, block: dict[str, Any]) -> None:
        self.kind = text(block.get("type"))
        self.id = text(block.get("id"))
        self.tool = text(block.get("name"))
        self._input = block.get("input")
        self._pieces = [text(block.get("thinking"))] if self.kind == "thinking" else []

    def add(self, delta: dict[str, Any]) -> None:
        if self.kind in ("tool_use", "thinking"):
            self._pieces.append(text(delta.get("partial_json")) or text(delta.get("thinking")))

    def arguments(self) -> Any:
        raw = "".join(self._pieces)
        return arguments_of(raw) if raw else self._input

    def thought(self) -> str:
        return "".join(self._pieces)
