"""The protocol agreed with a server, and what it adds to each message.

In the handshake, `initialize` opens a session. The later protocol has none: each request identifies the client.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mcp.shared.inbound import (
    MCP_METHOD_HEADER,
    MCP_NAME_HEADER,
    MCP_PROTOCOL_VERSION_HEADER,
    NAME_BEARING_METHODS,
    encode_header_value,
)
from mcp_types import CLIENT_CAPABILITIES_META_KEY, CLIENT_INFO_META_KEY, PROTOCOL_VERSION_META_KEY

CLIENT_INFO = {"name": "fastapi-aibridge", "version": "1"}
"""The client's identity, in the handshake and in each request of the later protocol."""


@dataclass(frozen=True, slots=True)
class Protocol:
    version: str
    later: bool
    """Whether it is the later protocol."""
    has_tools: bool
    """Whether the server offers tools; one that does not is not asked for them."""
    announces_changes: bool
    """Whether the server announces changes of its list of tools."""

    def stamp(self, method: str, params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the params and the headers of one request."""
        if self.later:
            return envelope(self.version, method, params)
        return dict(params), {MCP_PROTOCOL_VERSION_HEADER: self.version}


def agreed(version: str, *, later: bool, capabilities: object) -> Protocol:
    """Build the protocol from the server's capabilities. A server that states none at all may have tools."""
    tools = capabilities.get("tools") if isinstance(capabilities, dict) else {}
    return Protocol(
        version=version,
        later=later,
        has_tools=tools is not None and tools is not False,
        announces_changes=isinstance(tools, dict) and tools.get("listChanged") is True,
    )


def envelope(version: str, method: str, params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the params and the headers of a request of the later protocol."""
    meta = {
        PROTOCOL_VERSION_META_KEY: version,
        CLIENT_INFO_META_KEY: CLIENT_INFO,
        CLIENT_CAPABILITIES_META_KEY: {},
    }
    headers = {MCP_PROTOCOL_VERSION_HEADER: version, MCP_METHOD_HEADER: method}
    key = NAME_BEARING_METHODS.get(method)
    if key is not None and isinstance(name := params.get(key), str):
        headers[MCP_NAME_HEADER] = encode_header_value(name)
    return {**params, "_meta": meta}, headers
