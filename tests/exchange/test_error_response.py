"""Error responses of the gateway itself."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import SecretStr
from starlette.types import Message

from fastapi_aibridge.errors import GatewayError, UpstreamTimeout, UpstreamUnreachable
from fastapi_aibridge.exchange.error_response import send_error
from fastapi_aibridge.providers.anthropic import AnthropicProvider
from fastapi_aibridge.providers.openai import OpenAIProvider
from fastapi_aibridge.providers.provider import Provider
from fastapi_aibridge.settings import ProviderSettings

pytestmark = pytest.mark.anyio

SETTINGS = ProviderSettings(api_key=SecretStr("k"))
ERROR = GatewayError(503, "busy", "Try again.", headers={"Retry-After": "5"})


async def sent(provider: Provider | None, error: GatewayError = ERROR, **given: Any) -> tuple[Message, Any]:
    messages: list[Message] = []

    async def send(message: Message) -> None:
        messages.append(message)

    await send_error(send, provider, error, **given)
    start, body = messages
    headers = dict(start["headers"])
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"content-length"] == str(len(body["body"])).encode()
    assert not body.get("more_body", False)
    return start, json.loads(body["body"])


@pytest.mark.parametrize("provider", [OpenAIProvider("o", SETTINGS), AnthropicProvider("a", SETTINGS)])
async def test_an_error_has_the_providers_shape(provider: Provider) -> None:
    """An error has the provider's shape, its status and its headers."""
    start, body = await sent(provider, headers={"X-AIBridge-Interception-Id": "i"})
    assert body == provider.error_body(ERROR)
    assert start["status"] == 503
    headers = dict(start["headers"])
    assert headers[b"retry-after"] == b"5"
    assert headers[b"x-aibridge-interception-id"] == b"i"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 503])
async def test_what_another_try_does_not_change_is_not_tried_again(status: int) -> None:
    """A 401 or 403 tells the SDK not to retry: Claude Code would silently repeat the request for minutes."""
    start, _ = await sent(None, GatewayError(status, "code", "message"))
    assert dict(start["headers"]).get(b"x-should-retry") == (b"false" if status in (401, 403) else None)


async def test_an_error_is_not_sniffed() -> None:
    """An error forbids browsers to guess its type, because it repeats text that the caller wrote."""
    start, _ = await sent(None)
    assert dict(start["headers"])[b"x-content-type-options"] == b"nosniff"


@pytest.mark.parametrize(
    ("path", "anthropic"),
    [
        ("/ai/nobody/v1/messages", True),
        ("/nobody/v1/messages/count_tokens", True),
        ("/ai/nobody/v1/chat/completions", False),
        ("/ai/nobody/v1/messagesx", False),
        ("", False),
    ],
)
async def test_without_a_provider_the_path_tells(path: str, anthropic: bool) -> None:
    """For an unknown provider the path decides the shape, because it shows which SDK the caller uses."""
    _, body = await sent(None, path=path)
    assert ("type" in body) is anthropic
    assert body["error"]["message"] == "Try again."


def test_the_upstreams_failures_have_their_statuses() -> None:
    """An unreachable upstream gives 502, a silent one 504."""
    assert UpstreamUnreachable("x").status == 502
    assert UpstreamTimeout("x").status == 504
