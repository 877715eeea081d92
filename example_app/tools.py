"""The offline demonstration's MCP server, whose only tool the gateway injects, so that a model can be seen using it."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from mcp import types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server

from fastapi_aibridge.testing.serving import serve_in_thread

NAME = "demo"
"""The server's name in the settings; the tool is injected as `bmcp_demo_clock`."""
CLOCK = types.Tool(
    name="clock",
    description="The date and time now, in UTC or in a time zone such as Europe/Vienna.",
    input_schema={"type": "object", "properties": {"zone": {"type": "string"}}},
)


class ToolServer:
    """The server on a free loopback port, in a daemon thread, so that it cannot outlive the process."""

    def __init__(self) -> None:
        self._running = ExitStack()
        self._url: str | None = None

    def start(self) -> str:
        """Start the server unless it runs, and return its endpoint's URL. The port accepts connections on return."""
        if self._url is None:
            server = Server("aibridge-example", on_list_tools=_list, on_call_tool=_call)
            self._url = self._running.enter_context(serve_in_thread(server.streamable_http_app())) + "/mcp"
        return self._url

    def stop(self) -> None:
        self._running.close()
        self._url = None


def now(zone: str) -> str:
    """The time in this zone, or in UTC if it is empty.

    Raises `ZoneInfoNotFoundError` or `ValueError` for an unknown zone.
    """
    return datetime.now(ZoneInfo(zone) if zone else UTC).isoformat(timespec="seconds")


async def _list(_: ServerRequestContext, __: types.PaginatedRequestParams | None) -> types.ListToolsResult:
    return types.ListToolsResult(tools=[CLOCK])


async def _call(_: ServerRequestContext, params: types.CallToolRequestParams) -> types.CallToolResult:
    zone = str((params.arguments or {}).get("zone", ""))
    try:
        text, failed = now(zone), False
    except (ZoneInfoNotFoundError, ValueError, OSError):
        text, failed = f"there is no time zone {zone[:64]!r}", True
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)], is_error=failed)
