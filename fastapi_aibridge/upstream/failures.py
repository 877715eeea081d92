"""What the failures of an upstream's connection mean to the client."""

from __future__ import annotations

import asyncio

import aiohttp

from ..errors import GatewayError, UpstreamTimeout, UpstreamUnreachable

FAILURES = (aiohttp.ClientError, OSError, asyncio.TimeoutError)


def meaning_of(error: BaseException) -> GatewayError:
    """What a failure of the connection is to the client. Says nothing that a URL or header could have put into it."""
    if isinstance(error, asyncio.TimeoutError):
        return UpstreamTimeout("the upstream did not answer in time")
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        return UpstreamUnreachable("the upstream's TLS certificate or handshake is not acceptable", sent=False)
    if isinstance(error, aiohttp.ClientConnectorError):
        return UpstreamUnreachable("the upstream cannot be reached", sent=False)
    return UpstreamUnreachable("the upstream broke the connection off")
