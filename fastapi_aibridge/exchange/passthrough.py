"""Requests that are relayed without being understood: model lists, token counts, stored responses."""

from __future__ import annotations

from starlette.types import Message, Receive, Scope, Send

from ..credentials import own_key
from ..errors import GatewayError
from ..principal import Principal
from ..providers import Provider
from ..upstream.response import UpstreamResponse
from .body import read_body
from .calls import UpstreamRequest
from .engine import Engine
from .interruption import Interruption
from .relay import answer_headers

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
"""Others may have changed something upstream when they break off, and are not sent again."""


async def pass_through(
    engine: Engine,
    principal: Principal,
    provider: Provider,
    raw_path: str,
    scope: Scope,
    receive: Receive,
    send: Send,
    interruption: Interruption,
) -> None:
    """One request and its answer, byte for byte in both directions.

    Raises `GatewayError` while nothing has been sent, `ClientGone`, and `OSError` where the answer breaks off: then
    the server must close the connection, so that the client does not take the piece for the whole.
    """
    headers = dict(scope["headers"])
    credential = provider.credential(own_key(headers), principal)
    body = await read_body(scope, receive, engine.max_body_size)
    kept = engine.request_headers.going_up(scope["headers"], own_account=credential.kind == "byok")
    kept.append((b"accept-encoding", headers.get(b"accept-encoding", b"identity")))
    memory = engine.tool_memory.of((*principal.key, provider.name))
    method, target = scope["method"], provider.target(memory.path(raw_path), scope["query_string"])
    request = UpstreamRequest(method, target, kept, body, credential, repeatable=method in SAFE_METHODS)
    begun = False

    async def answer(message: Message) -> None:
        nonlocal begun
        begun = True
        await send(message)

    try:
        with interruption:
            response = await engine.caller.call(provider, principal, request)
            engine.metrics.passed_through(provider.name, response.status)
            try:
                await _relay(response, answer, interruption)
            finally:
                response.close()
    except GatewayError as error:
        if begun:
            raise ConnectionAbortedError(error.message) from error
        raise


async def _relay(response: UpstreamResponse, send: Send, interruption: Interruption) -> None:
    chunk = await response.read_some()
    head = answer_headers(response)
    await send({"type": "http.response.start", "status": response.status, "headers": head})
    while chunk:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
        chunk = await response.read_some()
    interruption.settle()
    await send({"type": "http.response.body", "body": b"", "more_body": False})
