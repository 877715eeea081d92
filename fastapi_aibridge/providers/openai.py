"""OpenAI: Chat Completions and Responses."""

from __future__ import annotations

from typing import Any, ClassVar

from ..errors import GatewayError
from ..formats import chat_completions, responses
from ..formats.openai_errors import error_object
from .provider import Provider


class OpenAIProvider(Provider):
    type = "openai"
    base_path = "/v1"
    list_headers = frozenset({"openai-beta"})
    intercepted: ClassVar = {"/v1/chat/completions": chat_completions, "/v1/responses": responses}
    passed_through = (
        "/v1/models",
        "/v1/models/*",
        "/v1/conversations",
        "/v1/conversations/*",
        "/v1/responses/*",
    )

    def authorization(self, key: str) -> tuple[str, str]:
        return ("authorization", f"Bearer {key}")

    def error_body(self, error: GatewayError) -> dict[str, Any]:
        return {"error": error_object(error)}
