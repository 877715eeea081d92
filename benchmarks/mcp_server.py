"""An MCP server with one tool, for the gateway that injects it."""

from __future__ import annotations

from mcp.server.mcpserver import MCPServer
from starlette.types import ASGIApp


def build() -> ASGIApp:
    """The app for `uvicorn --factory`; the endpoint is `/mcp`."""
    server = MCPServer("bench")

    @server.tool()
    def read_file(path: str) -> str:
        """Read a file."""
        return f"The file {path} is empty."

    return server.streamable_http_app()
