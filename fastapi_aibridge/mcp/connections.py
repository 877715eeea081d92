"""State that the MCP sessions of all bridges share: one HTTP client, and facts about servers and their tools.

Sessions, credentials and cookies are never shared.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar

from cachetools import LRUCache

from ..errors import AIBridgeError, ConfigurationError
from ..installing import install_command
from .background import BackgroundTasks
from .health import MAX_SERVERS, ServerHealth
from .http import HTTPClient

if TYPE_CHECKING:
    from asyncio import Task
    from contextvars import Context

    from .catalogue import ToolCatalogue

LISTENERS = 100
"""Standing streams for changes of tool lists, in all: each costs a socket. Further sessions look for changes on use."""
CLOSE_TIMEOUT = 2.0
"""Seconds for ending sessions, all together."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class MCPStats:
    """Counts of one app's sessions. All but `sessions_open` and `listeners` only grow."""

    sessions_open: int
    sessions_opened: int
    sessions_renewed: int
    listeners: int
    failures: Mapping[str, int]
    """Failed starts in bridges, by server."""


class MCPConnections:
    """The MCP connections of one app, which outlive its bridges. Entering raises `ConfigurationError` without mcp."""

    def __init__(self, *, listeners: int = LISTENERS) -> None:
        self.http = HTTPClient()
        self.health = ServerHealth()
        self._max_listeners = listeners
        # Mutable state; sessions change the counters through the methods.
        self._entered = AsyncExitStack()
        self._background: BackgroundTasks | None = None  # __aenter__
        self._catalogue: ToolCatalogue | None = None  # __aenter__
        self._handshake: LRUCache[str, None] = LRUCache(MAX_SERVERS)  # URLs of servers that know only the handshake
        self._opened = self._closed = self._renewed = self._listeners = 0

    async def __aenter__(self) -> Self:
        require_mcp()
        # The library is slow to load, so load it here rather than in the first request.
        self._catalogue = importlib.import_module(".catalogue", __package__).ToolCatalogue(self.health)
        self._background = BackgroundTasks()
        await self._entered.enter_async_context(self.http)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._background is not None:
            await self._background.aclose(CLOSE_TIMEOUT)
        await self._entered.aclose()

    @property
    def catalogue(self) -> ToolCatalogue:
        if self._catalogue is None:
            raise _not_open()
        return self._catalogue

    def spawn(self, work: Coroutine[Any, Any, T], context: Context | None = None) -> Task[T]:
        """Run `work` in a task that may outlive its caller: it ends by itself, or with the app. Without a `context` it
        runs in that of the app's start.
        """
        if self._background is None:
            work.close()
            raise _not_open()
        return self._background.spawn(work, context)

    @property
    def working(self) -> int:
        """The number of background tasks; 0 while all sessions are idle."""
        return len(self._background or ())

    def stats(self) -> MCPStats:
        return MCPStats(
            sessions_open=self._opened - self._closed,
            sessions_opened=self._opened,
            sessions_renewed=self._renewed,
            listeners=self._listeners,
            failures=self.health.failures,
        )

    def speaks_handshake(self, url: str) -> bool:
        """Whether the server was last seen to know only the `initialize` handshake, so that probing it is useless."""
        return url in self._handshake

    def note_era(self, url: str, *, handshake: bool) -> None:
        if handshake:
            self._handshake[url] = None
        else:
            self._handshake.pop(url, None)

    def take_listener(self) -> bool:
        """Whether one more standing stream may be opened; `drop_listener` gives it back."""
        if self._listeners >= self._max_listeners:
            return False
        self._listeners += 1
        return True

    def drop_listener(self) -> None:
        self._listeners -= 1

    def session_opened(self) -> None:
        self._opened += 1

    def session_renewed(self) -> None:
        self._renewed += 1

    def session_closed(self) -> None:
        self._closed += 1


def _not_open() -> AIBridgeError:
    return AIBridgeError("the MCP connections are not open: they live as long as the app's lifespan")


def require_mcp() -> None:
    """Raise `ConfigurationError` if the mcp library is not installed."""
    if importlib.util.find_spec("mcp") is None:
        raise ConfigurationError(f"MCP servers need the mcp library: {install_command('mcp')}")
