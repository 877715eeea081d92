"""From a request's bytes to what is known of it before the provider is called."""

from __future__ import annotations

from starlette.types import Receive, Scope

from ..errors import GatewayError
from ..formats import Format, ModelRequest
from .body import decode_body, read_body
from .engine import Engine
from .fair_queue import Share
from .memory import Holding
from .steps import in_steps


async def read_request(
    engine: Engine, format_: Format, scope: Scope, receive: Receive, share: Share, holding: Holding
) -> ModelRequest:
    """Read, decode and look through a request. Raises `GatewayError` and `ClientGone`."""
    body = await read_body(scope, receive, engine.max_body_size, holding)
    encodings = [value for name, value in scope["headers"] if name == b"content-encoding"]
    if len(encodings) > 1:
        raise GatewayError(415, "unsupported_encoding", "a body that is encoded more than once is not supported")
    if encodings and encodings[0]:
        body = await decode_body(body, encodings[0].decode("latin-1"), engine.max_body_size, holding, share)
    return await in_steps(format_.read(body, engine.max_text), share)
