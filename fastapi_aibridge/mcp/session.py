"""One principal's session with one MCP server: opened, renewed when the server has dropped it, ended.

While it is idle it is a few objects: no task and no socket, but for the stream of a listener.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

from mcp import ClientSession, types
from mcp.shared.exceptions import MCPError
from mcp_types import HEADER_MISMATCH, UNSUPPORTED_PROTOCOL_VERSION
from pydantic import TypeAdapter, ValidationError

from ..principal import Principal
from ..tools import Tool
from .connections import CLOSE_TIMEOUT, MCPConnections
from .credentials import Credentials
from .naming import Names
from .negotiation import negotiate
from .problems import BrokenOff, MCPProblem, Refused, SessionUnknown, Unreachable
from .server import MCPServer
from .wire import Wire

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT = 10.0
"""Seconds from the first byte to the list of tools."""
MAX_PAGES = 100
"""Pages of one list of tools: a server that never comes to an end is cut off."""
STALE_AFTER = 60.0
"""Seconds after which a list that may have changed unheard is read again, once somebody uses it."""
PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds between the attempts to connect for a call: as long as a server may take to restart."""
LISTEN_PAUSES = (1.0, 60.0)
"""Seconds before a listener comes back, at first and at most."""

_CALL_RESULT: TypeAdapter[types.CallToolResult | types.InputRequiredResult] = TypeAdapter(
    types.CallToolResult | types.InputRequiredResult
)


class Link:
    """A session as the server knows it: immutable, and replaced when the server forgets it."""

    __slots__ = ("client", "wire")

    def __init__(self, client: ClientSession, wire: Wire) -> None:
        self.client = client
        self.wire = wire


class Session:
    """Raises `MCPProblem` and `MCPError` where a method does not say otherwise."""

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

        # All that changes.
        self.tools: tuple[Tool, ...] = ()  # with `_repeatable` and `_listed_at`: _take
        self._repeatable: frozenset[str] = frozenset()
        self._listed_at = 0.0
        self._link: Link | None = None  # _connect
        self._connecting: asyncio.Task[Link] | None = None  # _linked
        self._refreshing: asyncio.Task[None] | None = None  # note_change
        self._changed = False  # a change was announced: note_change, _refresh
        self._listening: asyncio.Task[None] | None = None  # _start_listening
        self._closed = False  # aclose

    async def open(self) -> None:
        """Connect and list the tools."""
        await self._linked(None)

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> types.CallToolResult:
        """Run a tool. It is run again only where it surely has not been executed, or where the server says that
        repeating it does no harm.
        """
        request = types.CallToolRequest(params=types.CallToolRequestParams(name=tool, arguments=dict(arguments)))
        stale: Link | None = None
        pauses = iter(PAUSES)
        again = False  # a second attempt was made that is not about reaching the server
        while True:
            link: Link | None = None
            try:
                link = await self._linked(stale)
                result = await link.client.send_request(request, _CALL_RESULT)
                break
            except (Unreachable, Refused, BrokenOff) as problem:
                if not _surely_not_executed(problem, link):
                    if again or tool not in self._repeatable:
                        raise
                    again = True
                elif (pause := next(pauses, None)) is not None:
                    await asyncio.sleep(pause)
                else:
                    raise
            except SessionUnknown:
                if stale is not None or link is None:
                    raise
                stale = link
            except MCPError as error:
                if again or link is None:
                    raise
                again = True
                if error.code == UNSUPPORTED_PROTOCOL_VERSION:
                    stale = link
                elif error.code == HEADER_MISMATCH:
                    self._take(await self._list(link))  # what has to go into headers is learnt from the list
                else:
                    raise
        if self._refreshing is not None:
            # The tool changed the list of tools: whoever reads it next, after this answer, sees the new one.
            await asyncio.wait((self._refreshing,), timeout=self._connect_timeout)
        if isinstance(result, types.InputRequiredResult):
            raise MCPProblem("the tool asks for input, which nobody here can give")
        return result

    def used(self) -> None:
        """Somebody reads the tools: see whether they are still the right ones, where no listener tells."""
        link = self._link
        if (
            link is not None
            and self._listening is None
            and _announces_changes(link)
            and time.monotonic() - self._listed_at > STALE_AFTER
        ):
            self.note_change()

    def note_change(self) -> None:
        """The list of tools may have changed: read it again."""
        if self._closed:
            return
        self._changed = True
        if self._refreshing is None:
            self._refreshing = self._connections.spawn(self._refresh())

    async def aclose(self) -> None:
        """End the session on the server, within `CLOSE_TIMEOUT`. Raises nothing."""
        self._closed = True
        for task in (self._listening, self._refreshing):
            if task is not None:
                task.cancel()
        connecting = self._connecting
        if connecting is not None:
            # The server may have opened a session that we do not know of yet.
            await asyncio.wait((connecting,), timeout=CLOSE_TIMEOUT / 2)
            connecting.cancel()
        link, self._link = self._link, None
        if link is not None:
            await self._end(link)

    # Connecting

    async def _linked(self, stale: Link | None) -> Link:
        """The session, another one than `stale`. One task connects, whoever waits or stops waiting."""
        if self._closed:
            raise MCPProblem("its session has been closed")
        if self._link is not None and self._link is not stale:
            return self._link
        if self._connecting is None:
            self._connecting = self._connections.spawn(self._connect(renewal=stale is not None))
        connecting = self._connecting
        await asyncio.wait((connecting,))
        if connecting.cancelled():
            raise MCPProblem("its session has been closed")
        return connecting.result()

    async def _connect(self, *, renewal: bool) -> Link:
        wire = Wire(self.server.url, self._credentials, self._connections, self.note_change)
        try:
            async with asyncio.timeout(self._connect_timeout):
                client = await negotiate(self.server.url, wire, self._connections)
                link = Link(client, wire)
                listed = await self._list(link)
            if self._closed:
                raise MCPProblem("its session has been closed")
        except BaseException as error:
            await wire.end()
            if isinstance(error, TimeoutError):
                raise MCPProblem(f"it did not connect within {self._connect_timeout:g} s") from None
            raise
        finally:
            self._connecting = None
        if self._link is not None:
            self._connections.session_closed()
        self._connections.session_opened()
        if renewal:
            self._connections.session_renewed()
        self._link = link
        self._take(listed)
        self._start_listening(link)
        return link

    async def _end(self, link: Link) -> None:
        self._connections.session_closed()
        await link.wire.end()

    # The list of tools

    async def _list(self, link: Link) -> list[types.Tool]:
        """All pages."""
        tools: list[types.Tool] = []
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            params = types.PaginatedRequestParams(cursor=cursor) if cursor is not None else None
            try:
                if link.wire.session_id is None:
                    # Also notes which arguments have to be repeated in headers, which the later protocol may ask for.
                    page = await link.client.list_tools(params=params)
                else:
                    page = await link.client.send_request(types.ListToolsRequest(params=params), types.ListToolsResult)
            except ValidationError:
                raise BrokenOff("its list of tools is not valid") from None
            tools += page.tools
            if page.next_cursor is None or page.next_cursor == cursor:
                break
            cursor = page.next_cursor
        return tools

    def _take(self, listed: list[types.Tool]) -> None:
        tools: dict[str, Tool] = {}
        repeatable = set()
        for one in listed:
            if one.name in tools or not self.server.offers(one.name):
                continue
            tools[one.name] = self._connections.intern(
                Tool(
                    name=self._names.name(self.server.name, one.name),
                    server=self.server.name,
                    tool=one.name,
                    description=one.description or one.title or "",
                    input_schema=one.input_schema,
                )
            )
            hints = one.annotations
            if hints is not None and (hints.read_only_hint or hints.idempotent_hint):
                repeatable.add(one.name)
        ordered = tuple(tools[name] for name in sorted(tools))
        if ordered != self.tools:
            self.tools = ordered
        self._repeatable = frozenset(repeatable)
        self._listed_at = time.monotonic()

    async def _refresh(self) -> None:
        try:
            while self._changed:
                self._changed = False
                self._listed_at = time.monotonic()  # tried: not again at once
                async with asyncio.timeout(self._connect_timeout):
                    link = await self._linked(None)
                    try:
                        self._take(await self._list(link))
                    except SessionUnknown:
                        await self._linked(link)
        except (MCPProblem, MCPError, TimeoutError) as error:
            logger.debug("MCP server %r: its tools stay as they were: %s", self.server.name, type(error).__name__)
        finally:
            self._refreshing = None

    # Listening

    def _start_listening(self, link: Link) -> None:
        if self._listening is None and _announces_changes(link) and self._connections.take_listener():
            self._listening = self._connections.spawn(self._listen())

    async def _listen(self) -> None:
        """Keep a stream open on which the server announces changes, as long as it lets us."""
        pause, longest = LISTEN_PAUSES
        try:
            while True:
                began = time.monotonic()
                try:
                    await self._listen_once(await self._linked(None))
                except (Refused, MCPError):
                    return  # it announces changes, but nobody may listen
                except MCPProblem:
                    pass
                if time.monotonic() - began > longest:
                    pause = LISTEN_PAUSES[0]
                await asyncio.sleep(pause)
                pause = min(2 * pause, longest)
                self.note_change()  # who knows what was missed; it also renews a session that has ended
                if self._refreshing is not None:
                    await asyncio.wait((self._refreshing,))
        finally:
            self._listening = None
            self._connections.drop_listener()

    async def _listen_once(self, link: Link) -> None:
        if link.wire.session_id is not None:
            await link.wire.listen()
            return
        params = types.SubscriptionsListenRequestParams(notifications=types.SubscriptionFilter(tools_list_changed=True))
        await link.client.send_request(types.SubscriptionsListenRequest(params=params), types.EmptyResult)


def _surely_not_executed(problem: MCPProblem, link: Link | None) -> bool:
    """Whether the tool has not begun: there was no session yet, no connection, or the server has no time (503)."""
    if isinstance(problem, Refused):
        return problem.status == 503
    return link is None or isinstance(problem, Unreachable)


def _announces_changes(link: Link) -> bool:
    capabilities = link.client.server_capabilities
    if capabilities is None or capabilities.tools is None or not capabilities.tools.list_changed:
        return False
    return link.wire.session_id is not None or link.client.discover_result is not None
