"""Errors in the format of OpenAI's API: https://platform.openai.com/docs/guides/error-codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

_CODES: Mapping[int, str] = {
    401: "invalid_api_key",
    403: "unsupported_country_region_territory",
    404: "model_not_found",
    429: "rate_limit_exceeded",
}


def body(status: int, message: str) -> bytes:
    """Return the body of a refusal with this status."""
    return orjson.dumps({"error": error_object(status, message)})


def error_object(status: int, message: str) -> dict[str, Any]:
    fallback = "server_error" if status >= 500 else "invalid_request_error"
    kind = "requests" if status == 429 else fallback
    return {"message": message, "type": kind, "param": None, "code": _CODES.get(status)}
