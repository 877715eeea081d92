"""A message of Anthropic's API, accumulated from a stream or read whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import orjson

from ...principal import MAX_MODEL
from ...recorder.records import Facts, Thought, ToolUsage
from ..lenient import arguments_of, count, error_text, member, reported, text
from ..rounds import ToolCall
from ..text import Budget, TextBuffer
from ..usage import gone_on, messages_parts, messages_usage

_TEXTS = {"text_delta": "text", "thinking_delta": "thinking"}
_OF_A_CALL = ("type", "id", "name", "input")


class Block:
    """A content block, accumulated from its deltas. Unless `whole`, it keeps only facts for the record."""

    __slots__ = ("_input", "_texts", "hidden", "id", "index", "kind", "members", "tool")

    def __init__(self, members: Mapping[str, Any], budget: Budget, *, whole: bool) -> None:
        self.kind = text(members.get("type"))
        self.id = text(members.get("id"))
        self.tool = text(members.get("name"))
        self.members: dict[str, Any] = dict(members) if whole or self.kind == "tool_use" else {}
        self._input: TextBuffer | None = None
        self._texts: dict[str, TextBuffer] = {}
        self.hidden = False
        """Whether the block is hidden from the client, because it calls an injected tool."""
        self.index: int | None = None
        """Index of the block as the client sees it; None as long as it has none."""
        for name in _TEXTS.values():
            if isinstance(said := members.get(name), str) and (whole or self.kind == "thinking"):
                self._say(name, said, budget)

    def _say(self, name: str, said: str, budget: Budget) -> None:
        if (known := self._texts.get(name)) is None:
            known = self._texts[name] = TextBuffer(budget)
        known.add(said)

    def add(self, delta: Mapping[str, Any], budget: Budget, *, whole: bool) -> None:
        kind = delta.get("type")
        if kind == "input_json_delta":
            if self.kind == "tool_use" or whole:
                if self._input is None:
                    self._input = TextBuffer(budget)
                self._input.add(text(delta.get("partial_json")))
        elif (name := _TEXTS.get(kind) if isinstance(kind, str) else None) is not None:
            if whole or self.kind == name:
                self._say(name, text(delta.get(name)), budget)
        elif whole and kind == "citations_delta":
            known = self.members.get("citations")
            if not isinstance(known, list):
                known = self.members["citations"] = []
            if budget.take(len(orjson.dumps(delta)), 1):
                known.append(delta.get("citation"))
        elif whole and budget.take(len(orjson.dumps(delta))):
            # Signatures, compactions and unknown deltas: their members belong to the block.
            self.members |= {key: value for key, value in delta.items() if key != "type"}

    @property
    def is_server_call(self) -> bool:
        """Whether it calls one of the provider's own tools."""
        return self.kind == "server_tool_use"

    @property
    def is_blank(self) -> bool:
        """Whether it is a blank text block, which the provider writes but refuses in a request."""
        return self.kind == "text" and not str(self._texts.get("text", "")).strip()

    def rename(self, id_: str) -> None:
        self.id = self.members["id"] = id_

    def call(self) -> ToolCall:
        raw = str(self._input or "")
        given = self.members.get("input")
        arguments = raw or (given if isinstance(given, str) else orjson.dumps(given or {}).decode())
        extra = {key: value for key, value in self.members.items() if key not in _OF_A_CALL}
        return ToolCall(id=self.id, name=self.tool, arguments=arguments, extra=extra)

    def written(self) -> dict[str, Any]:
        """Return the block as it goes back upstream: the model's words, signatures included, unchanged."""
        texts = {name: str(said) for name, said in self._texts.items()}
        block = {**self.members, **texts}
        if self._input or (self.kind == "tool_use" and not isinstance(block.get("input"), dict)):
            block["input"] = self.call().parsed() or {}
        return block

    def recorded(self, message_id: str, budget: Budget) -> ToolUsage:
        raw = str(self._input or "") or self.members.get("input")
        cut = self._input is not None and self._input.truncated
        arguments, truncated = arguments_of(raw, budget.recorded, cut=cut)
        return ToolUsage(
            message_id=message_id, call_id=self.id, tool=self.tool, arguments=arguments, truncated=truncated
        )

    def thought(self, budget: Budget) -> Thought | None:
        said = self._texts.get("thinking")
        if not said:
            return None
        words = str(said)
        cut = said.truncated or len(words) > budget.recorded
        return Thought(source="thinking", text=words[: budget.recorded], truncated=cut)


class AnthropicMessage:
    """A message of Anthropic's. `whole` keeps all of it, for a message that may have to go back to the provider."""

    __slots__ = (
        "_open", "_whole", "blocks", "budget", "complete", "container", "delta", "error", "id", "model", "stop_reason",
        "stream_complete", "usage",
    )  # fmt: skip

    def __init__(self, budget: Budget, *, whole: bool = False) -> None:
        self.budget = budget
        self._whole = whole
        self.id = ""
        self.stream_complete = False
        self.model = ""
        """The model, as the provider names it."""
        self.complete = False
        self.error: str | None = None
        self.usage: dict[str, Any] = {}
        self.stop_reason: object = None
        self.container: object = None
        self.blocks: list[Block] = []
        self.delta: dict[str, Any] = {}
        """All `message_delta` events merged: each may bring other members."""
        self._open: dict[int, Block] = {}

    def apply(self, event: Mapping[str, Any]) -> None:
        match event.get("type"):
            case "content_block_delta":
                if block := self.block(event):
                    block.add(member(event, "delta"), self.budget, whole=self._whole)
            case "content_block_start":
                self._start(count(event.get("index")), member(event, "content_block"))
            case "message_start":
                message = member(event, "message")
                self.id = text(message.get("id"))
                self.model = text(message.get("model"))[:MAX_MODEL]
                self.usage = dict(member(message, "usage"))
                self.container = message.get("container") or self.container
            case "message_delta":
                self._message_delta(event)
            case "message_stop":
                self.complete = self.stream_complete = True
            case "error":
                self.error = self.error or reported(event) or error_text(None)
            case _ if event.get("error"):
                self.error = self.error or reported(event)

    def done(self) -> None:
        """Do nothing: Anthropic's streams send no `[DONE]`, and it would not end the message."""

    def block(self, event: Mapping[str, Any]) -> Block | None:
        """Return the block that an event belongs to; None where there is none."""
        return self._open.get(count(event.get("index")))

    def _start(self, index: int, members: Mapping[str, Any]) -> None:
        block = Block(members, self.budget, whole=self._whole)
        if self.budget.take(0, 1):
            self._open[index] = block
            self.blocks.append(block)
        else:
            self._open.pop(index, None)

    def _message_delta(self, event: Mapping[str, Any]) -> None:
        before, now = member(self.delta, "delta"), member(event, "delta")
        delta = before | {key: value for key, value in now.items() if value is not None or key not in before}
        self.delta = {**self.delta, **event, "delta": delta}
        self.stop_reason = delta.get("stop_reason")
        # Some servers send no `message_stop`; Anthropic's Python SDK and Claude Code accept the message all the same.
        self.complete = self.complete or bool(self.stop_reason)
        self.container = delta.get("container") or self.container
        # Cumulative counts: those of the last delta hold, the others stay as message_start gave them.
        self.usage = gone_on(self.usage, member(event, "usage"))

    def read(self, answer: Mapping[str, Any]) -> None:
        if answer.get("type") == "error" or answer.get("error"):
            self.error = reported(answer) or error_text(None)
            return
        self.id = text(answer.get("id"))
        self.model = text(answer.get("model"))[:MAX_MODEL]
        self.usage = member(answer, "usage")
        self.stop_reason = answer.get("stop_reason")
        self.container = answer.get("container")
        content = answer.get("content")
        self.complete = isinstance(content, list)
        if not self.complete:
            self.error = reported(answer)
        for index, block in enumerate(content if isinstance(content, list) else ()):
            if isinstance(block, dict):
                self._start(index, block)

    def facts(self) -> Facts:
        facts = Facts(model=self.model)
        for block in self.blocks:
            if block.kind == "tool_use":
                facts.tool_usages.append(block.recorded(self.id, self.budget))
            elif block.kind == "thinking" and (thought := block.thought(self.budget)):
                facts.thoughts.append(thought)
        if self.usage:
            facts.token_usages.append(messages_usage(self.id, self.usage, partial=not self.complete))
            facts.usage_settled = self.complete or bool(member(self.delta, "usage"))
            if not facts.usage_settled:
                facts.server_calls = Counter(f"{block.tool}_requests" for block in self.blocks if block.is_server_call)
            if "iterations" in self.usage:
                facts.parts = messages_parts(self.usage)
        return facts
