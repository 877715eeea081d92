"""The choice of the protocol that a server speaks: the `initialize` handshake, or the later one without sessions."""

from __future__ import annotations

import asyncio
from typing import Any

from mcp_types import UNSUPPORTED_PROTOCOL_VERSION
from mcp_types.version import (
    HANDSHAKE_PROTOCOL_VERSIONS,
    LATEST_HANDSHAKE_VERSION,
    LATEST_MODERN_VERSION,
    MODERN_PROTOCOL_VERSIONS,
)

from .dispatcher import HTTPDispatcher
from .problems import Refused, ServerError, Unusable
from .protocol import CLIENT_INFO, Protocol, agreed, envelope

PROBE_TIMEOUT = 3.0
"""Seconds for the probe; a server that does not know it may never answer."""


async def negotiate(dispatcher: HTTPDispatcher, *, handshake_first: bool) -> Protocol:
    """Return the protocol to speak with the server. Raises `MCPProblem`.

    The server is probed with `server/discover`; if that shows no later protocol, the handshake is used. A server that
    refuses the handshake and names later versions is probed once more: it may have been too slow at first.
    """
    if not handshake_first and (found := await _discover(dispatcher, LATEST_MODERN_VERSION, PROBE_TIMEOUT)):
        return found
    try:
        return await _initialize(dispatcher)
    except ServerError as error:
        version = _shared_version(error)
        if version is None or (found := await _discover(dispatcher, version, None)) is None:
            raise
        return found


async def _initialize(dispatcher: HTTPDispatcher) -> Protocol:
    params = {"protocolVersion": LATEST_HANDSHAKE_VERSION, "capabilities": {}, "clientInfo": CLIENT_INFO}
    result = await dispatcher.request("initialize", params, {})
    version = result.get("protocolVersion")
    if not isinstance(version, str) or version not in HANDSHAKE_PROTOCOL_VERSIONS:
        raise Unusable("its answer to the handshake names no version that is known here")
    protocol = agreed(version, later=False, capabilities=result.get("capabilities"))
    await dispatcher.notify("notifications/initialized", {}, protocol.stamp("notifications/initialized", {})[1])
    return protocol


async def _discover(dispatcher: HTTPDispatcher, version: str, within: float | None) -> Protocol | None:
    """Probe the server; None if it shows no sign of the later protocol."""
    for attempt in range(2):
        try:
            async with asyncio.timeout(within):
                result = await dispatcher.request("server/discover", *envelope(version, "server/discover", {}))
        except ServerError as error:
            shared = _shared_version(error)
            if shared is None:
                if error.code == UNSUPPORTED_PROTOCOL_VERSION and _speaks_only_unknown_versions(error):
                    raise
                return None
            if attempt:
                return None
            version = shared
            continue
        except Refused as refused:
            if refused.status in (401, 403):
                raise
            return None
        except TimeoutError:
            return None
        supported = _strings(result.get("supportedVersions"))
        known = [one for one in MODERN_PROTOCOL_VERSIONS if one in supported]
        return agreed(known[-1], later=True, capabilities=result.get("capabilities")) if known else None
    return None


def _shared_version(error: ServerError) -> str | None:
    """The newest version of the later protocol that both sides know, according to a refusal; None if there is none."""
    if error.code != UNSUPPORTED_PROTOCOL_VERSION:
        return None
    supported = _supported(error)
    return next((one for one in reversed(MODERN_PROTOCOL_VERSIONS) if one in supported), None)


def _speaks_only_unknown_versions(error: ServerError) -> bool:
    supported = _supported(error)
    return bool(supported) and not any(one in HANDSHAKE_PROTOCOL_VERSIONS for one in supported)


def _supported(error: ServerError) -> list[str]:
    return _strings(error.data.get("supported")) if isinstance(error.data, dict) else []


def _strings(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
