"""The tools of all MCP servers of one principal."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Coroutine, Mapping, Sequence
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError
from ..observability.tracing import detached
from ..principal import Principal
from ..tool_schemas import restored
from ..tool_schemas.visible_text import clean, shown
from ..tools import Content, Text, Tool, ToolResult
from .builder import MCPProxyBuilder
from .connections import CLOSE_TIMEOUT, MCPConnections, require_mcp
from .limits import MAX_RESULT, cut
from .naming import Names
from .problems import MCPProblem, ServerError, TooLarge, Unusable
from .results import content_of, masked
from .server import MCPServer

if TYPE_CHECKING:
    from .session import Session

logger = logging.getLogger(__name__)

BUILD_TIMEOUT = 10.0
"""Seconds for an app to return a principal's servers."""
CONNECT_TIMEOUT = 10.0
"""Seconds for each server to connect and to list its tools."""
CALL_TIMEOUT = 60.0
"""Seconds that a tool may run."""
MAX_SERVERS = 100
"""Servers of one principal."""
MAX_ERROR = 2000
"""Characters of a server's own error message."""


class MCPTools:
    """Implements `Tools`. Sessions and credentials are the principal's own; `connections` is shared by all."""

    def __init__(
        self,
        servers: Sequence[MCPServer] | MCPProxyBuilder,
        principal: Principal,
        connections: MCPConnections,
        *,
        build_timeout: float = BUILD_TIMEOUT,
        connect_timeout: float = CONNECT_TIMEOUT,
        call_timeout: float = CALL_TIMEOUT,
        max_result: int = MAX_RESULT,
    ) -> None:
        self._servers = servers
        self._principal = principal
        self._connections = connections
        self._build_timeout = build_timeout
        self._connect_timeout = connect_timeout
        self._call_timeout = call_timeout
        self._max_result = max_result

        # Mutable state, with the methods that set it.
        self._sessions: tuple[Session, ...] = ()  # start: the working ones, ordered by server
        self._opening: tuple[Session, ...] = ()  # start: all of them
        self._degraded = False  # start
        self._closed = False  # aclose
        self._parts: tuple[tuple[Tool, ...], ...] = ()  # the parts of `_tools`, by session
        self._tools: tuple[Tool, ...] = ()

    @property
    def tools(self) -> tuple[Tool, ...]:
        for session in self._sessions:
            session.refresh_if_stale()
        return self._current()

    @property
    def degraded(self) -> bool:
        return self._degraded

    async def start(self) -> None:
        """Connect to all servers at once. Raises only `ConfigurationError`, if mcp is not installed."""
        require_mcp()
        from .session import Session

        servers = await self._list_servers()
        names = Names(server.name for server in servers)
        sessions = []
        for server in sorted(servers, key=lambda server: server.name):
            try:
                session = Session(
                    server, self._principal, self._connections, names, connect_timeout=self._connect_timeout
                )
            except Exception as error:  # noqa: BLE001 - a server that the app defined wrongly costs that server only
                self._degraded = True
                self._connections.health.failed(server.name, f"it failed with {type(error).__qualname__}")
            else:
                sessions.append(session)
        self._opening = tuple(sessions)
        if not self._opening or self._closed:
            return
        openings = [self._connections.spawn(self._traced(session), copy_context()) for session in self._opening]
        await asyncio.wait(openings)
        if self._closed:
            return
        working = []
        for session, opening in zip(self._opening, openings, strict=True):
            reason = _reason(opening)
            if reason is None:
                self._connections.health.works(session.server.name)
                working.append(session)
            else:
                self._degraded = True
                self._connections.health.failed(session.server.name, reason)
        self._sessions = tuple(working)

    def _traced(self, session: Session) -> Coroutine[Any, Any, None]:
        principal = self._principal
        attributes = {
            "aibridge.initiator_id": principal.initiator_id,
            "aibridge.api_key_id": principal.api_key_id,
            "aibridge.mcp_server": session.server.name,
        }
        return detached("MCP.Connect", attributes, session.open())

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        """Run one tool. Everything but a cancellation ends in a result, after `call_timeout` at the latest."""
        began = time.monotonic()
        is_error = True
        content: tuple[Content, ...]
        try:
            content, is_error = await self._call(name, arguments)
        except ServerError as error:
            said = clean(error.said, MAX_ERROR) or f"error {error.code}"
            content = (Text(f"The server refused the call: {said}"),)
        except (TooLarge, Unusable) as problem:
            content = (Text(f"The tool may have been run, but what it answered cannot be shown: {problem}."),)
        except MCPProblem as problem:
            content = (Text(f"The tool could not be called: {problem}."),)
        except TimeoutError:
            content = (Text(f"The tool did not answer within {self._call_timeout:g} seconds."),)
        except Exception as error:  # noqa: BLE001 - reported to the model
            # Its text may contain data from the server, which must not be logged.
            logger.warning("MCP tool %s failed with %s", shown(name), type(error).__qualname__)
            content = (Text("The tool's answer could not be understood."),)
        return ToolResult(content=cut(content, self._max_result), is_error=is_error, duration=time.monotonic() - began)

    async def aclose(self) -> None:
        """End all sessions at once, within `CLOSE_TIMEOUT`; slower ones end in the background."""
        self._closed = True
        closings = [self._connections.spawn(session.aclose()) for session in self._opening]
        if closings:
            await asyncio.wait(closings, timeout=CLOSE_TIMEOUT)

    async def _list_servers(self) -> Sequence[MCPServer]:
        if isinstance(self._servers, Sequence):
            return self._servers
        # A task of its own, so that the app's code can be abandoned even if it ignores cancellation. Its context says
        # whose build it is a part of, so that it cannot wait for its own end.
        building = self._connections.spawn(_built(self._servers, self._principal), copy_context())
        try:
            await asyncio.wait((building,), timeout=self._build_timeout)
            if not building.done():
                return self._without_servers(f"took longer than {self._build_timeout:g} s")
            if building.cancelled():
                return self._without_servers("was cancelled")
            servers = building.result()
        except ConfigurationError as error:  # our own words
            return self._without_servers(f"failed: {error}")
        except Exception as error:  # noqa: BLE001 - the app's code
            return self._without_servers(f"failed with {type(error).__qualname__}")
        finally:
            building.cancel()
        unique = {server.name: server for server in reversed(servers)}
        if len(unique) < len(servers):
            self._degraded = True
            logger.warning("The app's list of MCP servers names one twice; it is left out")
        if len(unique) > MAX_SERVERS:
            self._degraded = True
            logger.warning("The app's list of MCP servers is cut after %d servers", MAX_SERVERS)
        return sorted(unique.values(), key=lambda server: server.name)[:MAX_SERVERS]

    def _without_servers(self, why: str) -> Sequence[MCPServer]:
        self._degraded = True
        logger.warning("The app's list of MCP servers %s: the bridge has no tools", why)
        return ()

    async def _call(self, name: str, arguments: Mapping[str, Any]) -> tuple[tuple[Content, ...], bool]:
        found = next(
            ((session, tool) for session in self._sessions for tool in session.tools if tool.name == name), None
        )
        if found is None:
            return (Text(f"There is no tool named {name[:64]!r}."),), True
        session, tool = found
        try:
            async with asyncio.timeout(self._call_timeout):
                result = await session.call(tool, restored(arguments, tool.own_names))
        except ServerError as error:
            error.said = session.masker.text(error.said)
            raise
        return masked(content_of(result), session.masker), result.get("isError") in (True, "true")

    def _current(self) -> tuple[Tool, ...]:
        parts = tuple(session.tools for session in self._sessions)
        if any(one is not other for one, other in zip(parts, self._parts, strict=False)) or len(parts) != len(
            self._parts
        ):
            self._parts = parts
            self._tools = tuple(tool for part in parts for tool in part)
        return self._tools


async def _built(builder: MCPProxyBuilder, principal: Principal) -> Sequence[MCPServer]:
    built = builder.build(principal)
    servers = list(await built if inspect.isawaitable(built) else built)
    if not all(isinstance(server, MCPServer) and isinstance(server.name, str) for server in servers):
        raise TypeError("the list holds something that is no MCPServer with a name")
    return servers


def _reason(opening: asyncio.Task[None]) -> str | None:
    """The reason why a server did not start; None if it did. It contains no text of the server or the app."""
    if opening.cancelled():
        return "its start was cancelled"
    error = opening.exception()
    if error is None:
        return None
    return str(error) if isinstance(error, MCPProblem) else f"it failed with {type(error).__qualname__}"
