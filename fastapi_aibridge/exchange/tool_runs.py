"""Runs the injected tools that a message calls, and marks their calls in the record."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from ..cancellation import is_cancelled
from ..formats.rounds import AnsweredCall, ToolCall
from ..observability import Metrics
from ..recorder import Facts, ToolUsage
from ..tools import Audio, Content, Image, Text, ToolResult
from .toolset import Toolset

IMAGES = {"image/png", "image/jpeg", "image/gif", "image/webp"}
"""Image types that the vendors' models can see. They refuse a whole request for an image of another type."""


class ToolRuns:
    """The tool runs of one interception."""

    __slots__ = ("_max_text", "_metrics", "_results", "_toolset")

    def __init__(self, toolset: Toolset, metrics: Metrics, max_text: int) -> None:
        self._toolset = toolset
        self._metrics = metrics
        self._max_text = max_text
        self._results: list[AnsweredCall | None] = []  # of the round's calls, None while a call is running

    async def run(self, calls: list[ToolCall]) -> list[AnsweredCall]:
        """Run all calls concurrently. Return each with its result or its error."""
        self._results = [None] * len(calls)
        return list(await asyncio.gather(*(self._run(place, call) for place, call in enumerate(calls))))

    async def _run(self, place: int, call: ToolCall) -> AnsweredCall:
        answered = self._results[place] = await self._answered(call)
        return answered

    def forget(self) -> None:
        """Forget the results of the round, which has ended."""
        self._results = []

    async def _answered(self, call: ToolCall) -> AnsweredCall:
        arguments = call.parsed()
        if arguments is None:
            return _failed(call, "the arguments are not a JSON object")
        try:
            result = await self._toolset.tools.call(call.name, arguments)
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            return _failed(call, "the tool was cancelled")
        if result.duration is not None and (tool := self._toolset.by_name.get(call.name)):
            self._metrics.tool_called(tool.server, tool.tool, result.duration, is_error=result.is_error)
        return AnsweredCall(call=call, result=replace(result, content=tuple(map(_shown, result.content))))

    def mark(self, facts: Facts, names: frozenset[str]) -> None:
        """Mark the injected calls among the facts, in place. `names` are the tools that were injected."""
        # By their order, since the ids of calls may be missing or the same.
        results = iter(self._results)
        for place, usage in enumerate(facts.tool_usages):
            if usage.tool in names and usage.tool in self._toolset.by_name:
                facts.tool_usages[place] = self._marked(usage, next(results, None))

    def _marked(self, usage: ToolUsage, answered: AnsweredCall | None) -> ToolUsage:
        tool = self._toolset.by_name[usage.tool]
        error = "no result: the message or the request ended before" if answered is None else None
        if answered is not None and answered.result.is_error:
            error = answered.result.text
        cut = error is not None and len(error) > self._max_text
        return replace(
            usage,
            tool=tool.tool,
            injected=True,
            server=tool.server,
            error=error[: self._max_text] if error is not None else None,
            duration=answered.result.duration if answered is not None else None,
            truncated=usage.truncated or cut,
        )


def _failed(call: ToolCall, why: str) -> AnsweredCall:
    return AnsweredCall(call=call, result=ToolResult(content=(Text(why),), is_error=True))


def _shown(part: Content) -> Content:
    """Return the part, or a short text in its place if the model cannot see or hear it."""
    if isinstance(part, Audio) or (isinstance(part, Image) and part.mime_type not in IMAGES):
        return Text(f"[{type(part).__name__.lower()}, {part.mime_type}]")
    return part
