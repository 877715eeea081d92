"""The gateway's errors in Anthropic's shape (https://docs.anthropic.com/en/api/errors)."""

from __future__ import annotations

from typing import Any

from ..errors import GatewayError
from .budget_errors import BILLING_ERROR, OVER_BUDGET

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def error_body(error: GatewayError) -> dict[str, Any]:
    """The body of an error response, which is also the data of an `error` event."""
    type_ = _TYPES.get(error.status) or ("api_error" if error.status >= 500 else "invalid_request_error")
    if error.code == OVER_BUDGET:
        type_ = BILLING_ERROR
    return {"type": "error", "error": {"type": type_, "message": error.message}}
