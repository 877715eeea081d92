"""OpenAI: Chat Completions, Responses, Completions and Embeddings."""

from __future__ import annotations

from typing import Any, ClassVar

from ..errors import GatewayError
from ..formats import chat_completions, responses
from ..formats.compaction import compaction
from ..formats.completions import completions
from ..formats.embeddings import embeddings
from ..formats.openai_errors import error_object
from .provider import Provider
from .routes import Route


class OpenAIProvider(Provider):
    type = "openai"
    base_path = "/v1"
    list_headers = frozenset({"openai-beta"})
    intercepted: ClassVar = {
        "/v1/chat/completions": chat_completions,
        "/v1/responses": responses,
        "/v1/responses/compact": compaction,
        "/v1/completions": completions,
        "/v1/embeddings": embeddings,
    }
    passed_through = (
        Route(path="/v1/models", methods=("GET",), models="list"),
        Route(path="/v1/models/*", methods=("GET", "DELETE"), organisation_methods=("DELETE",), models="path"),
        Route(path="/v1/conversations", methods=("POST",), creates="conversation", names_objects=True),
        Route(
            path="/v1/conversations/*/items",
            methods=("GET", "POST"),
            kind="conversation",
            creates="item",
            names_objects=True,
        ),
        Route(path="/v1/conversations/*", methods=("GET", "POST", "DELETE"), kind="conversation"),
        Route(
            path="/v1/responses/input_tokens", methods=("POST",), reads_by_post=True, names_objects=True, models="body"
        ),
        Route(path="/v1/responses/*/cancel", methods=("POST",), kind="response"),
        Route(path="/v1/responses/*", methods=("GET", "POST", "DELETE"), kind="response"),
    )

    def authorization(self, key: str) -> tuple[str, str]:
        return ("authorization", f"Bearer {key}")

    def error_body(self, error: GatewayError) -> dict[str, Any]:
        return {"error": error_object(error)}
