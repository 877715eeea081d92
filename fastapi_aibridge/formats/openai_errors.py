"""The gateway's errors in OpenAI's shape."""

from __future__ import annotations

from ..errors import GatewayError
from .budget_errors import OVER_BUDGET

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def error_object(error: GatewayError) -> dict[str, str | None]:
    """Return the content of the `error` member: `message`, `type`, `param` and `code`."""
    type_ = _TYPES.get(error.status) or ("server_error" if error.status >= 500 else "invalid_request_error")
    if error.code == OVER_BUDGET:
        type_ = OVER_BUDGET
    return {"message": error.message, "type": type_, "param": None, "code": error.code}
