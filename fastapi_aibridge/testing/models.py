"""The lists of models that the vendors' model routes return."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

_CREATED = 1_735_689_600
_CREATED_AT = "2025-01-01T00:00:00Z"


def openai(models: Sequence[str]) -> bytes:
    return orjson.dumps({"object": "list", "data": [_openai_model(model) for model in models]})


def openai_model(model: str) -> bytes:
    return orjson.dumps(_openai_model(model))


def anthropic(models: Sequence[str]) -> bytes:
    """Return one page with all models."""
    page = {"has_more": False, "first_id": next(iter(models), None), "last_id": next(reversed(models), None)}
    return orjson.dumps({"data": [_anthropic_model(model) for model in models], **page})


def anthropic_model(model: str) -> bytes:
    return orjson.dumps(_anthropic_model(model))


def _openai_model(model: str) -> dict[str, Any]:
    return {"id": model, "object": "model", "created": _CREATED, "owned_by": "scripted"}


def _anthropic_model(model: str) -> dict[str, Any]:
    return {
        "id": model,
        "type": "model",
        "display_name": model,
        "created_at": _CREATED_AT,
        "deprecated_at": None,
        "lifecycle": "active",
        "line": None,
        "capabilities": None,
    }
