"""MCP servers as tools: connect, filter, name, call. The mcp library is needed only where a server is connected."""
