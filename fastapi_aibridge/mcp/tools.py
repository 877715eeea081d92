"""What a bridge needs of its tools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from .result import Text, ToolResult
from .tool import Tool


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
    """The tools of a bridge without MCP servers."""

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
        return ToolResult(content=(Text(f"There is no tool named {name!r}."),), is_error=True, duration=0.0)

    async def aclose(self) -> None:
        pass
