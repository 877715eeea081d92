"""MCP servers as tools: connect, filter, name, call. The mcp library is needed only where a server is connected."""

from .builder import MCPProxyBuilder, SettingsProxyBuilder
from .connections import MCPConnections, MCPStats
from .mcp_tools import MCPTools
from .naming import Names
from .server import MCPServer

__all__ = [
    "MCPConnections",
    "MCPProxyBuilder",
    "MCPServer",
    "MCPStats",
    "MCPTools",
    "Names",
    "SettingsProxyBuilder",
]
