"""Tools that a bridge offers to models beside the client's own: what they are, what they answer, who runs them.

Nothing here knows where a tool lives or which API a model is called by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True, weakref_slot=True)
class Tool:
    """One tool as it is offered to models: `name` is what models call, `tool` what its server calls it.

    Equal tools are one object for all principals: `input_schema` is only for reading.
    """

    name: str
    server: str
    tool: str
    description: str
    input_schema: Mapping[str, Any] = field(repr=False)
    repeatable: bool = False
    """Whether running it once more does no harm, so that a call that broke off may be repeated."""
    own_names: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The tool's own names of properties that the schema has under another one, which all providers take."""


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
    """What a call came to. An error is a result too: the model reads it and may try again."""

    content: tuple[Content, ...]
    is_error: bool = False
    """The tool said so, or it could not be called and the text says why."""
    duration: float | None = None
    """Seconds; None where the tool was not run."""

    @property
    def text(self) -> str:
        """All of it as text, for records and for formats that know nothing else; an image is only mentioned."""
        said = [
            part.text if isinstance(part, Text) else f"[{type(part).__name__.lower()}, {part.mime_type}]"
            for part in self.content
        ]
        return "\n".join(said) or "(no output)"


class Tools(Protocol):
    """The tools of one principal. `start()` and `aclose()` may run in different tasks."""

    @property
    def tools(self) -> tuple[Tool, ...]:
        """What is offered now, ordered by server and tool; the same object until a server changes its list."""
        ...

    @property
    def degraded(self) -> bool:
        """Whether some server failed to start, so that its tools are missing."""
        ...

    async def start(self) -> None:
        """Connect; a server that fails costs its tools only."""
        ...

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        """Run one tool by its injected name. Whatever goes wrong is a result that says so; only cancellation raises."""
        ...

    async def aclose(self) -> None:
        """End the sessions with the servers, also if `start()` failed, was cancelled or never ran."""
        ...


class NoTools:
    """The tools of a bridge without any."""

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
