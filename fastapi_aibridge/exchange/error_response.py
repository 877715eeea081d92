"""Sends error responses of the gateway itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import orjson
from starlette.types import Send

from ..errors import GatewayError
from ..formats.anthropic_errors import error_body as anthropic_body
from ..formats.openai_errors import error_object
from ..providers.response_headers import PROTECTION

if TYPE_CHECKING:
    from ..providers.provider import Provider

_FINAL = (401, 403)
"""Statuses that a retry does not change. Claude Code retries a 401 for minutes unless it is told not to."""


async def send_error(
    send: Send, provider: Provider | None, error: GatewayError, headers: Mapping[str, str] | None = None, path: str = ""
) -> None:
    """Send an error in the provider's shape. Without a provider, the path tells which shape the client expects."""
    if provider is not None:
        body = provider.error_body(error)
    elif path.endswith("/v1/messages") or "/v1/messages/" in path:
        body = anthropic_body(error)
    else:
        body = {"error": error_object(error)}
    data = orjson.dumps(body)
    fields = {"content-type": "application/json", "content-length": str(len(data)), **error.headers, **(headers or {})}
    if error.status in _FINAL:
        fields.setdefault("x-should-retry", "false")
    raw: list[tuple[bytes, bytes]] = list(PROTECTION)
    raw += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": raw})
    await send({"type": "http.response.body", "body": data})
