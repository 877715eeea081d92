"""What the MCP sessions of all bridges share: one HTTP connection pool and what is known of the servers.

Never a session, a credential or a cookie.
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import importlib
import importlib.util
import logging
from collections import Counter
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar
from weakref import WeakValueDictionary

import aiohttp
import orjson

from ..errors import AIBridgeError, ConfigurationError
from ..tools import Tool

logger = logging.getLogger(__name__)

CONNECTIONS_PER_HOST = 512
"""Calls to one server that run at the same time in this process; more of them wait."""
LISTENERS = 100
"""Standing streams for news of changed tool lists, in all: each costs a socket. Sessions beyond look for themselves."""
CLOSE_TIMEOUT = 2.0
"""Seconds that ending sessions may take, all together."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class MCPStats:
    """The sessions of one app. All but `sessions_open` and `listeners` only grow."""

    sessions_open: int
    sessions_opened: int
    sessions_renewed: int
    listeners: int
    failures: Mapping[str, int]
    """By server: how often it failed to start in a bridge."""


class MCPConnections:
    """Entered once for each app, and outlives the bridges. Raises `ConfigurationError` where mcp is not installed."""

    def __init__(self, *, listeners: int = LISTENERS) -> None:
        self._max_listeners = listeners
        # All that changes; sessions change the counters through the methods.
        self._http: aiohttp.ClientSession | None = None  # __aenter__, __aexit__
        self._context = contextvars.copy_context()  # of __aenter__, not of whoever happens to need a session first
        self._tasks: set[asyncio.Task[Any]] = set()  # spawn
        self._known: WeakValueDictionary[bytes, Tool] = WeakValueDictionary()  # intern
        self._handshake: set[str] = set()  # URLs of servers of the earlier protocol era
        self._failing: dict[str, str] = {}  # server: why it failed last, for one line in the log, not thousands
        self._failures: Counter[str] = Counter()
        self._opened = self._closed = self._renewed = self._listeners = 0

    async def __aenter__(self) -> Self:
        require_mcp()
        importlib.import_module(".session", __package__)  # takes long: here rather than in somebody's first request
        self._context = contextvars.copy_context()
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, limit_per_host=CONNECTIONS_PER_HOST, ttl_dns_cache=30),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "fastapi-aibridge", "Accept-Encoding": "identity"},
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_TIMEOUT)
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._http is not None:
            await self._http.close()

    @property
    def http(self) -> aiohttp.ClientSession:
        if self._http is None:
            raise AIBridgeError("the MCP connections are not open: they live as long as the app's lifespan")
        return self._http

    def stats(self) -> MCPStats:
        return MCPStats(
            sessions_open=self._opened - self._closed,
            sessions_opened=self._opened,
            sessions_renewed=self._renewed,
            listeners=self._listeners,
            failures=dict(self._failures),
        )

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run `work` beside whoever asked for it, and beyond: it ends by itself, or with the app."""
        task = asyncio.get_running_loop().create_task(work, context=self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._forget, context=self._context)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # seen, also if nobody waits

    def intern(self, tool: Tool) -> Tool:
        """The one object for all tools that are equal to this one: a thousand principals see the same schemas."""
        key = hashlib.sha256(
            orjson.dumps([tool.name, tool.server, tool.tool, tool.description, tool.input_schema])
        ).digest()
        return self._known.setdefault(key, tool)

    def speaks_handshake(self, url: str) -> bool:
        """Whether a server was last seen to know the `initialize` handshake only, so that probing it is no use."""
        return url in self._handshake

    def note_era(self, url: str, *, handshake: bool) -> None:
        (self._handshake.add if handshake else self._handshake.discard)(url)

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

    def failed(self, server: str, reason: str) -> None:
        """Count a server that did not start, and log it unless the log says so already."""
        self._failures[server] += 1
        if self._failing.get(server) != reason:
            self._failing[server] = reason
            logger.warning("MCP server %r is left out: %s", server, reason)

    def works(self, server: str) -> None:
        if self._failing and self._failing.pop(server, None) is not None:
            logger.info("MCP server %r works again", server)


def require_mcp() -> None:
    """Raises `ConfigurationError` where the mcp library is not installed."""
    if importlib.util.find_spec("mcp") is None:
        raise ConfigurationError("MCP servers need the mcp library: pip install 'fastapi-aibridge[mcp]'")
