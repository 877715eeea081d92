"""Which protocol a server speaks: the `initialize` handshake, or the later one that has no sessions."""

from __future__ import annotations

import asyncio

from mcp import ClientSession, types
from mcp.shared.exceptions import MCPError
from mcp_types import UNSUPPORTED_PROTOCOL_VERSION
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, LATEST_MODERN_VERSION, MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from .connections import MCPConnections
from .problems import BrokenOff, MCPProblem, Refused
from .wire import Wire

PROBE_TIMEOUT = 3.0
"""Seconds that a server has to answer the probe; one that does not know it may well not answer."""

CLIENT_INFO = types.Implementation(name="fastapi-aibridge", version="1")


async def negotiate(url: str, wire: Wire, connections: MCPConnections) -> ClientSession:
    """A session over `wire` that is ready for requests.

    The server is asked with `server/discover`; whatever shows no later protocol falls back to the handshake. A server
    that is known to need that is not asked again. Raises `MCPError` and `MCPProblem`.
    """
    client = ClientSession(dispatcher=wire, client_info=CLIENT_INFO)
    try:
        if connections.speaks_handshake(url):
            try:
                await client.initialize()
            except (MCPError, MCPProblem):
                connections.note_era(url, handshake=False)
                raise
        elif not await _discover(client):
            await client.initialize()
            connections.note_era(url, handshake=True)
    except (ValidationError, RuntimeError):
        raise BrokenOff("its answer to the handshake is not valid") from None
    wire.version = client.protocol_version
    return client


async def _discover(client: ClientSession) -> bool:
    version = LATEST_MODERN_VERSION
    for attempt in range(2):
        try:
            async with asyncio.timeout(PROBE_TIMEOUT):
                raw = await client.send_discover(version)
            result = types.DiscoverResult.model_validate(raw)
        except MCPError as error:
            if error.code != UNSUPPORTED_PROTOCOL_VERSION:
                return False
            supported = _supported(error)
            shared = [one for one in MODERN_PROTOCOL_VERSIONS if one in supported]
            if shared and not attempt:
                version = shared[-1]
                continue
            if supported and not any(one in HANDSHAKE_PROTOCOL_VERSIONS for one in supported):
                raise
            return False
        except Refused as refused:
            if refused.status in (401, 403):
                raise
            return False
        except (ValidationError, TimeoutError):
            return False
        if not any(one in result.supported_versions for one in MODERN_PROTOCOL_VERSIONS):
            return False
        client.adopt(result)
        return True
    return False


def _supported(error: MCPError) -> list[str]:
    try:
        return types.UnsupportedProtocolVersionErrorData.model_validate(error.data).supported
    except ValidationError:
        return []
