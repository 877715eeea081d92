"""Runs the injected tools that a message calls, and tells them from the client's own in the record."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from ..formats.rounds import Result, ToolCall
from ..observability import Metrics
from ..recorder import Facts, ToolUsage
from ..tools import Audio, Content, Image, Text, ToolResult
from .cancellation import is_cancelled
from .toolset import Toolset

IMAGES = {"image/png", "image/jpeg", "image/gif", "image/webp"}
"""What the vendors' models can see. With another kind of image they refuse the whole request."""


class ToolRuns:
    """The tools of one interception; `results` are those of the running round, as they come."""

    __slots__ = ("_max_text", "_metrics", "_toolset", "results")

    def __init__(self, toolset: Toolset, metrics: Metrics, max_text: int) -> None:
        self._toolset = toolset
        self._metrics = metrics
        self._max_text = max_text
        self.results: list[Result] = []

    async def run(self, calls: list[ToolCall]) -> list[Result]:
        """All at once; each gets its result or its error."""
        self.results = []
        return list(await asyncio.gather(*(self._run(call) for call in calls)))

    async def _run(self, call: ToolCall) -> Result:
        result = await self._outcome(call)
        self.results.append(result)
        return result

    async def _outcome(self, call: ToolCall) -> Result:
        arguments = call.parsed()
        if arguments is None:
            return _failed(call, "the arguments are not a JSON object")
        try:
            outcome = await self._toolset.tools.call(call.name, arguments)
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            return _failed(call, "the tool was cancelled")
        if outcome.duration is not None and (tool := self._toolset.by_name.get(call.name)):
            self._metrics.tool_called(tool.server, tool.tool, outcome.duration, is_error=outcome.is_error)
        return Result(call=call, outcome=replace(outcome, content=tuple(map(_shown, outcome.content))))

    def mark(self, facts: Facts, names: frozenset[str]) -> None:
        """Tell injected calls from the client's, in place. `names` are the tools that were injected."""
        left: dict[tuple[str, str], list[Result]] = {}
        for result in self.results:
            left.setdefault((result.call.id, result.call.name), []).append(result)
        for place, usage in enumerate(facts.tool_usages):
            if usage.tool in names and usage.tool in self._toolset.by_name:
                results = left.get((usage.call_id, usage.tool))
                facts.tool_usages[place] = self._marked(usage, results.pop(0) if results else None)

    def _marked(self, usage: ToolUsage, result: Result | None) -> ToolUsage:
        tool = self._toolset.by_name[usage.tool]
        error = "no result: the message or the request ended before" if result is None else None
        if result is not None and result.outcome.is_error:
            error = result.outcome.text
        cut = error is not None and len(error) > self._max_text
        return replace(
            usage,
            tool=tool.tool,
            injected=True,
            server=tool.server,
            error=error[: self._max_text] if error is not None else None,
            duration=result.outcome.duration if result is not None else None,
            truncated=usage.truncated or cut,
        )


def _failed(call: ToolCall, why: str) -> Result:
    return Result(call=call, outcome=ToolResult(content=(Text(why),), is_error=True))


def _shown(part: Content) -> Content:
    """The part, or what is said of it to a model that cannot see or hear it."""
    if isinstance(part, Audio) or (isinstance(part, Image) and part.mime_type not in IMAGES):
        return Text(f"[{type(part).__name__.lower()}, {part.mime_type}]")
    return part
