"""One principal's session with one MCP server: opened, renewed if the server has lost it, ended.

An idle session is a few objects: it has no task and no socket, except the stream of a listener.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from contextvars import copy_context
from typing import Any

from mcp_types import HEADER_MISMATCH

from ..masking import Masker
from ..principal import Principal
from ..tools import Tool
from .connection import Connection
from .connections import CLOSE_TIMEOUT, MCPConnections
from .credentials import Credentials
from .dispatcher import HTTPDispatcher
from .listener import listen
from .naming import Names
from .negotiation import negotiate
from .problems import ConnectionBroken, MCPProblem, Refused, ServerError, Unreachable
from .server import MCPServer
from .tool_list import ToolList, masked_tool

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT = 10.0
"""Seconds to connect and to list the tools."""
STALE_AFTER = 60.0
"""Seconds after which a list without a listener is read again on its next use."""
REFRESHES = 5
"""Readings of a changing list that follow each other at once; the pause before each later one doubles."""
REFRESH_PAUSES = (1.0, 60.0)
"""Seconds of such a pause, at first and at most."""
PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds between the attempts to connect for a call, in which a server may restart."""


class Session:
    """One principal's session with one server. Methods raise `MCPProblem` unless they say otherwise."""

    __slots__ = (
        "_changed",
        "_closed",
        "_connect_timeout",
        "_connecting",
        "_connection",
        "_connections",
        "_credentials",
        "_headers",
        "_listed_at",
        "_listening",
        "_names",
        "_refreshes",
        "_refreshing",
        "server",
        "tools",
    )

    def __init__(
        self,
        server: MCPServer,
        principal: Principal,
        connections: MCPConnections,
        names: Names,
        *,
        connect_timeout: float = CONNECT_TIMEOUT,
    ) -> None:
        self.server = server
        self._connections = connections
        self._credentials = Credentials(server, principal)
        self._names = names
        self._connect_timeout = connect_timeout

        # Mutable state, with the methods that change it.
        self.tools: tuple[Tool, ...] = ()  # with `_headers` and `_listed_at`: _take
        self._headers: Mapping[str, Mapping[tuple[str, ...], str]] = _NONE  # by tool: arguments that go into headers
        self._listed_at = 0.0
        self._connection: Connection | None = None  # _connect, _forget
        self._connecting: asyncio.Task[Connection] | None = None  # _connected
        self._refreshing: asyncio.Task[None] | None = None  # note_change
        self._refreshes = 0  # note_change: in short succession
        self._changed = False  # a change was announced: note_change, _refresh
        self._listening: asyncio.Task[None] | None = None  # _start_listening
        self._closed = False  # aclose

    async def open(self) -> None:
        """Connect and list the tools."""
        for name in self._credentials.left_out:
            self._connections.health.remark(
                self.server.name, f"its header {name} is left out for principals that have no session key"
            )
        await self._connected(None)

    async def call(self, tool: Tool, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Run a tool. A failed call is repeated only if the tool was surely not executed, or is declared repeatable."""
        lost: Connection | None = None
        pauses = iter(PAUSES)
        listed_again = repeated = False
        while True:
            connection: Connection | None = None
            try:
                connection = await self._connected(lost)
                result = await connection.call(tool.tool, arguments, self._headers.get(tool.tool, {}))
                break
            except MCPProblem as problem:
                if _has_not_begun(problem, connection) and (pause := next(pauses, None)) is not None:
                    await asyncio.sleep(pause)
                    continue
                if connection is None:
                    raise
                if _code(problem) == HEADER_MISMATCH and not listed_again:
                    listed_again = True  # the list says which arguments go into headers
                    await self._take(await connection.list_tools(self.server.offers))
                    continue
                if lost is None and isinstance(problem, Refused):
                    alike = await self._has_lost(connection, problem)
                    if alike is not None:
                        lost = connection
                        if alike or tool.repeatable:
                            continue
                        self._forget(connection)
                elif isinstance(problem, ConnectionBroken) and not repeated and tool.repeatable:
                    repeated = True
                    continue
                raise
        if self._refreshing is not None and self._refreshes <= REFRESHES:
            # The call may have changed the list of tools: wait, so that whoever reads it next sees the new one.
            await asyncio.wait((self._refreshing,), timeout=self._connect_timeout)
        return result

    def refresh_if_stale(self) -> None:
        """Read the list of tools again if it may be out of date and no listener would tell."""
        connection = self._connection
        if (
            connection is not None
            and self._listening is None
            and connection.announces_changes
            and time.monotonic() - self._listed_at > STALE_AFTER
        ):
            self.note_change()

    def note_change(self) -> None:
        """Read the list of tools again in the background, because it may have changed."""
        if self._closed:
            return
        self._changed = True
        if self._refreshing is None:
            shortest, longest = REFRESH_PAUSES
            self._refreshes = self._refreshes + 1 if time.monotonic() - self._listed_at < longest else 1
            doublings = min(self._refreshes - REFRESHES - 1, 10)
            pause = min(shortest * 2**doublings, longest) if doublings >= 0 else 0.0
            self._refreshing = self._connections.spawn(self._refresh(pause))

    async def aclose(self) -> None:
        """End the session on the server, within `CLOSE_TIMEOUT`. Raises nothing."""
        self._closed = True
        for task in (self._listening, self._refreshing):
            if task is not None:
                task.cancel()
        connecting = self._connecting
        if connecting is not None:
            # The server may have opened a session that is not known here yet.
            await asyncio.wait((connecting,), timeout=CLOSE_TIMEOUT / 2)
            connecting.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            self._connections.session_closed()
            await connection.end()

    # Connecting

    async def _connected(self, lost: Connection | None) -> Connection:
        """Return a connection other than `lost`. A single task connects, whoever waits for it or stops waiting."""
        if self._closed:
            raise MCPProblem("its session has been closed")
        if self._connection is not None and self._connection is not lost:
            return self._connection
        if self._connecting is None:
            # The first connection runs in the context of the bridge's build, so a token provider cannot wait for that
            # build.
            context = copy_context() if lost is None else None
            self._connecting = self._connections.spawn(self._connect(renewal=lost is not None), context)
        connecting = self._connecting
        await asyncio.wait((connecting,))
        if connecting.cancelled():
            raise MCPProblem("its session has been closed")
        return connecting.result()

    async def _connect(self, *, renewal: bool) -> Connection:
        url = self.server.url
        dispatcher = HTTPDispatcher(url, self._credentials, self._connections, self.note_change)
        known = self._connections.speaks_handshake(url)
        try:
            async with asyncio.timeout(self._connect_timeout):
                protocol = await negotiate(dispatcher, handshake_first=known)
                connection = Connection(dispatcher, protocol)
                listed = await connection.list_tools(self.server.offers)
            await self._take(listed)
            if self._closed:
                raise MCPProblem("its session has been closed")
        except BaseException as error:
            if known:
                self._connections.note_era(url, handshake=False)
            await dispatcher.end({})
            if isinstance(error, TimeoutError):
                raise MCPProblem(f"it did not connect within {self._connect_timeout:g} s") from None
            raise
        finally:
            self._connecting = None
        self._connections.note_era(url, handshake=not protocol.later)
        if self._connection is not None:
            self._connections.session_closed()
        self._connections.session_opened()
        if renewal:
            self._connections.session_renewed()
        self._connection = connection
        self._start_listening(connection)
        return connection

    async def _has_lost(self, connection: Connection, refused: Refused) -> bool | None:
        """Whether the server has lost the session of a request that it refused; None if it has not.

        Servers say so in many ways, so the test is whether it now refuses what it has answered before. True if it
        refuses that in the same way: then the tool has not begun. False if it does so in another way.
        """
        if connection is not self._connection:
            return refused.status not in _SPOKEN_FOR_ANOTHER  # another task has found out that it is lost
        if refused.status in (404, 410) and connection.has_session:
            return True
        try:
            async with asyncio.timeout(self._connect_timeout):
                await connection.probe()
        except Refused as other:
            return refused.alike(other) and refused.status not in _SPOKEN_FOR_ANOTHER
        except (MCPProblem, TimeoutError):
            pass
        return None

    def _forget(self, connection: Connection) -> None:
        if self._connection is connection:
            self._connection = None
            self._connections.session_closed()

    @property
    def masker(self) -> Masker:
        return self._credentials.masker

    # The list of tools

    async def _take(self, listed: ToolList) -> None:
        catalogue = self._connections.catalogue
        tools = []
        masker = self.masker
        for name in sorted(listed.tools):
            one = masked_tool(listed.tools[name], masker)
            tool, new = catalogue.tool(self.server.name, self._names.name(self.server.name, name), one)
            tools.append(tool)
            if new:
                await asyncio.sleep(0)  # creating one may take some milliseconds
        ordered = tuple(tools)
        if ordered != self.tools:
            self.tools = ordered
        self._headers = {name: one.headers for name, one in listed.tools.items() if one.headers} or _NONE
        self._listed_at = time.monotonic()
        self._connections.health.remark(self.server.name, *listed.remarks)

    async def _refresh(self, pause: float) -> None:
        try:
            await asyncio.sleep(pause)
            self._changed = False
            self._listed_at = time.monotonic()  # an attempt counts, so that none follows at once
            async with asyncio.timeout(self._connect_timeout):
                connection = await self._connected(None)
                try:
                    await self._take(await connection.list_tools(self.server.offers))
                except Refused:
                    await self._connected(connection)
        except (MCPProblem, TimeoutError) as error:
            logger.debug("MCP server %r: its tools stay as they were: %s", self.server.name, type(error).__name__)
        finally:
            self._refreshing = None
        if self._changed:
            self.note_change()

    # Listening

    def _start_listening(self, connection: Connection) -> None:
        if self._listening is None and connection.announces_changes and self._connections.take_listener():
            self._listening = self._connections.spawn(self._listen())

    async def _listen(self) -> None:
        try:
            await listen(lambda: self._connected(None), self._refreshed)
        finally:
            self._listening = None
            self._connections.drop_listener()

    async def _refreshed(self) -> None:
        """Read the list again, which also renews a lost session."""
        self.note_change()
        if self._refreshing is not None:
            await asyncio.wait((self._refreshing,))


_NONE: Mapping[str, Any] = {}
_SPOKEN_FOR_ANOTHER = (502, 504)
"""Statuses of an intermediary, which does not know what has been executed."""


def _has_not_begun(problem: MCPProblem, connection: Connection | None) -> bool:
    """Whether the tool surely has not begun and may yet: no session or connection so far, or a busy server (503)."""
    if isinstance(problem, Refused):
        return problem.status == 503 or (connection is None and problem.status >= 500)
    return isinstance(problem, Unreachable) or (connection is None and isinstance(problem, ConnectionBroken))


def _code(problem: MCPProblem) -> int | None:
    return problem.code if isinstance(problem, ServerError) else None
