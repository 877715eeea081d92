"""Which MCP servers a principal has."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Protocol

from ..principal import Principal
from ..settings import MCPServerSettings
from .server import MCPServer


class MCPProxyBuilder(Protocol):
    """What an app supplies to give each principal servers of their own. Asked once for each bridge."""

    def build(self, principal: Principal) -> Sequence[MCPServer] | Awaitable[Sequence[MCPServer]]:
        """The principal's servers, each name once, within 10 seconds. An error here costs the bridge its tools, not its
        start. One that is not async runs on the event loop: it must not wait for anything.

        Ids and session key are those of all requests that the bridge will serve; the metadata is that of the first one
        only, so nothing should be decided by it. Must not acquire the same principal's bridge.
        """
        ...


class SettingsProxyBuilder:
    """The servers of the settings, the same for all principals."""

    def __init__(self, servers: Mapping[str, MCPServerSettings]) -> None:
        self._servers = tuple(MCPServer.from_settings(name, one) for name, one in sorted(servers.items()))

    def build(self, principal: Principal) -> Sequence[MCPServer]:  # noqa: ARG002 - the credentials are theirs, not the list
        return self._servers
