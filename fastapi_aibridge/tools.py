"""Tools that a bridge offers to models beside the client's own: definitions, results, and the interface to run them.

This module knows neither where a tool lives nor through which API the model is called.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True, weakref_slot=True)
class Tool:
    """One tool as it is offered to models: models call it by `name`, its server calls it `tool`.

    Equal tools are one object for all principals: `input_schema` must not be changed.
    """

    name: str
    server: str
    tool: str
    description: str
    input_schema: Mapping[str, Any] = field(repr=False)
    repeatable: bool = False
    """Whether running it twice does no harm, so that a call that broke off may be repeated."""
    own_names: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The tool's own names of properties, by the names in the schema, which all providers accept."""


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Image:
    data: str = field(repr=False)
    """Base64."""
    mime_type: str


@dataclass(frozen=True, slots=True)
class Audio:
    data: str = field(repr=False)
    """Base64."""
    mime_type: str


Content: TypeAlias = Text | Image | Audio


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    """The result of a call. An error is a result too: the model reads it and may try again."""

    content: tuple[Content, ...]
    is_error: bool = False
    """Whether the tool reported an error or could not be called; the text then says why."""
    duration: float | None = None
    """Seconds; None where the tool was not run."""

    @property
    def text(self) -> str:
        """The content as text, for records and text-only formats; images and audio are only mentioned."""
        said = [
            part.text if isinstance(part, Text) else f"[{type(part).__name__.lower()}, {part.mime_type}]"
            for part in self.content
        ]
        text = "\n".join(said)
        return text if text.strip() else "(no output)"  # vendors refuse a blank text


class Tools(Protocol):
    """The tools of one principal. `start()` and `aclose()` may run in different tasks."""

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools offered now, ordered by server and tool; the same object until a server changes its list."""
        ...

    @property
    def degraded(self) -> bool:
        """Whether some server failed to start, so that its tools are missing."""
        ...

    async def start(self) -> None:
        """Connect to the servers; one that fails loses its own tools only."""
        ...

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        """Run one tool by its injected name. Any failure becomes a result that says so; only cancellation raises."""
        ...

    async def aclose(self) -> None:
        """End the sessions with the servers, also if `start()` failed, was cancelled or never ran."""
        ...


class NoTools:
    """The tools of a bridge that has none."""

    __slots__ = ()

    @property
    def tools(self) -> tuple[Tool, ...]:
        return ()

    @property
    def degraded(self) -> bool:
        return False

    async def start(self) -> None:
        pass

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:  # noqa: ARG002 - there is nothing to call
        return ToolResult(content=(Text(f"There is no tool named {name[:64]!r}."),), is_error=True)

    async def aclose(self) -> None:
        pass
