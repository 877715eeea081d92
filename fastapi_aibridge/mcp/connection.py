"""A session on an MCP server, in terms of tools. If the server loses the session, a new connection replaces it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mcp.shared.inbound import mcp_param_headers

from .dispatcher import HTTPDispatcher
from .problems import MCPProblem, Refused
from .protocol import Protocol
from .tool_list import ToolList

MAX_PAGES = 100
"""Pages of one list of tools that are read, in case a server never ends it."""
MAX_CURSOR = 4096
MAX_HEADERS = 16 * 1024
"""Bytes of arguments that are repeated in headers."""


class Connection:
    """One session on a server. Methods raise `MCPProblem` unless they say otherwise."""

    __slots__ = ("_dispatcher", "protocol")

    def __init__(self, dispatcher: HTTPDispatcher, protocol: Protocol) -> None:
        self._dispatcher = dispatcher
        self.protocol = protocol

    @property
    def has_session(self) -> bool:
        return self._dispatcher.session_id is not None

    @property
    def announces_changes(self) -> bool:
        """Whether the server can be listened to for changes of its list of tools."""
        return self.protocol.announces_changes and (self.has_session or self.protocol.later)

    async def list_tools(self, offers: Callable[[str], bool]) -> ToolList:
        """Read all pages of the tool list, within the limits. A server that offers no tools is not asked."""
        tools = ToolList(offers, later=self.protocol.later)
        if not self.protocol.has_tools:
            return tools
        cursor: str | None = None
        seen: set[str] = set()
        for _ in range(MAX_PAGES):
            try:
                page = await self._request("tools/list", {} if cursor is None else {"cursor": cursor})
            except Refused:
                if not tools.tools:
                    raise
                tools.remarks.append("a further page of its tools is refused; those before it are offered")
                break
            tools.add(page)
            cursor = page.get("nextCursor")
            if not isinstance(cursor, str) or cursor in seen or len(cursor) > MAX_CURSOR or tools.full:
                break
            seen.add(cursor)
        else:
            tools.remarks.append(f"its list of tools has more than {MAX_PAGES} pages; the others are left out")
        return tools

    async def probe(self) -> None:
        """Repeat a request that the server has answered before, to see whether it still knows the session."""
        await self._request("tools/list", {})

    async def call(
        self, tool: str, arguments: Mapping[str, Any], in_headers: Mapping[tuple[str, ...], str]
    ) -> dict[str, Any]:
        """Return the result as the server gives it. `in_headers` are the arguments that are repeated in headers."""
        headers = mcp_param_headers(in_headers, arguments) if in_headers else {}
        if sum(map(len, headers.values())) > MAX_HEADERS:
            raise MCPProblem("the arguments that it wants in headers are too long for that")
        result = await self._request("tools/call", {"name": tool, "arguments": arguments}, headers)
        if result.get("resultType") not in (None, "complete"):
            raise MCPProblem("the tool asks for input, which nobody here can give")
        return result

    async def listen(self) -> None:
        """Receive announcements of changes until the server ends the stream."""
        if self.protocol.later:
            await self._request("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
        else:
            await self._dispatcher.listen(self.protocol.stamp("", {})[1])

    async def end(self) -> None:
        """End the session on the server, in a bounded time. Raises nothing."""
        await self._dispatcher.end(self.protocol.stamp("", {})[1])

    async def _request(
        self, method: str, params: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        stamped, own = self.protocol.stamp(method, params)
        return await self._dispatcher.request(method, stamped, {**own, **(headers or {})})
