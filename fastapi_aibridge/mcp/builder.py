"""The choice of a principal's MCP servers."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Protocol

from ..principal import Principal
from ..settings import MCPServerSettings
from .server import MCPServer


class MCPProxyBuilder(Protocol):
    """An app's own way to give each principal its servers. It is asked once for each bridge."""

    def build(self, principal: Principal) -> Sequence[MCPServer] | Awaitable[Sequence[MCPServer]]:
        """Return the principal's servers, with distinct names, within 10 seconds.

        An error costs the bridge its tools, not its start. A function that is not async runs on the event loop, so it
        must not block.

        The principal's ids and session key are those of all requests that the bridge will serve; the metadata is that
        of the first request only, so nothing should depend on it. Must not acquire the same principal's bridge.
        """
        ...


class SettingsProxyBuilder:
    """Gives all principals the servers of the settings."""

    def __init__(self, servers: Mapping[str, MCPServerSettings]) -> None:
        self._servers = tuple(MCPServer.from_settings(name, one) for name, one in sorted(servers.items()))

    def build(self, principal: Principal) -> Sequence[MCPServer]:  # noqa: ARG002 - only the credentials depend on it
        return self._servers
