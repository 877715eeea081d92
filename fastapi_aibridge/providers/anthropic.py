"""Anthropic: the Messages API."""

from __future__ import annotations

from typing import Any, ClassVar

from ..errors import GatewayError
from ..formats import messages
from ..formats.anthropic_errors import error_body
from .provider import Provider
from .routes import Route

_OAUTH = "sk-ant-oat"
"""Prefix of the access tokens of Claude subscriptions. Anthropic accepts them only as bearer tokens, with this beta."""
_OAUTH_BETA = ("anthropic-beta", "oauth-2025-04-20")


class AnthropicProvider(Provider):
    type = "anthropic"
    list_headers = frozenset({"anthropic-beta"})
    intercepted: ClassVar = {"/v1/messages": messages}
    passed_through = (
        Route(path="/v1/models", methods=("GET",), models="list"),
        Route(path="/v1/models/*", methods=("GET",), models="path"),
        Route(path="/v1/messages/count_tokens", methods=("POST",), reads_by_post=True, models="body"),
        Route(path="/api/event_logging/*", methods=("GET", "POST"), reads_by_post=True),
    )

    def authorization(self, key: str) -> tuple[str, str]:
        return ("authorization", f"Bearer {key}") if key.startswith(_OAUTH) else ("x-api-key", key)

    def authorizations(self, key: str) -> list[tuple[str, str]]:
        own = [self.authorization(key)]
        return [*own, _OAUTH_BETA] if key.startswith(_OAUTH) else own

    def error_body(self, error: GatewayError) -> dict[str, Any]:
        return error_body(error)
