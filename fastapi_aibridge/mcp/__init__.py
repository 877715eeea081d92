"""MCP servers as tools: connect, filter, name, call. The mcp library is needed only where a server is connected."""

from .builder import MCPProxyBuilder, SettingsProxyBuilder
from .connections import MCPConnections, MCPStats
from .mcp_tools import MCPTools
from .naming import Names
from .result import Audio, Content, Image, Text, ToolResult
from .server import MCPServer
from .tool import Tool
from .tools import NoTools, Tools

__all__ = [
    "Audio",
    "Content",
    "Image",
    "MCPConnections",
    "MCPProxyBuilder",
    "MCPServer",
    "MCPStats",
    "MCPTools",
    "Names",
    "NoTools",
    "SettingsProxyBuilder",
    "Text",
    "Tool",
    "ToolResult",
    "Tools",
]
