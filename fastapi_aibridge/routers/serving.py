"""Hands a request to its principal's bridge, or refuses it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from ..errors import BuildTimeout, GatewayError, PoolShutdown, PrincipalError
from ..exchange.error_response import send_error
from ..host import Host
from ..principal import Principal

if TYPE_CHECKING:
    from ..providers.provider import Provider

logger = logging.getLogger(__name__)

_CODES = {401: "invalid_api_key", 403: "forbidden", 429: "rate_limit_exceeded"}


async def serve(host: Host, principal: Principal, scope: Scope, receive: Receive, send: Send) -> None:
    """Have the principal's bridge answer the request. The scope is that of a mounted app."""
    try:
        lease = host.pool.acquire(principal)
        bridge = await lease.__aenter__()
    except PoolShutdown as error:
        await refuse(host, unavailable(str(error), {"connection": "close"}), scope, send)
        return
    except BuildTimeout as error:
        await refuse(host, unavailable(str(error)), scope, send)
        return
    except GatewayError as error:
        await refuse(host, error, scope, send)
        return
    except Exception:
        logger.exception("a bridge could not be built")
        await refuse(host, unavailable("the gateway cannot serve this caller now"), scope, send)
        return
    try:
        await bridge(scope, receive, send)
    finally:
        lease.release()


async def refuse(host: Host, error: GatewayError, scope: Scope, send: Send) -> None:
    """Answer with an error in the format of the requested provider."""
    host.refused(error.code)
    await send_error(send, provider_of(host, scope), error, path=scope["path"])


def provider_of(host: Host, scope: Scope) -> Provider | None:
    name = scope["path_params"]["provider"]
    return next((one for one in host.pool.providers if one.name == name), None)


def below_prefix(scope: Scope) -> Scope:
    """Return the scope as a mounted app gets it: the part before the provider's name is the root path."""
    params = scope["path_params"]
    tail = len(params["provider"]) + len(params["path"]) + 2
    return {**scope, "root_path": scope["path"][:-tail]}


# Errors


def refusal_of(error: Exception) -> GatewayError | None:
    """Return a dependency's exception as an error that the provider's SDKs can read; None if the app must handle it."""
    if isinstance(error, HTTPException):
        code = _CODES.get(error.status_code, "invalid_request" if error.status_code < 500 else "server_error")
        return GatewayError(error.status_code, code, str(error.detail), headers=error.headers)
    if isinstance(error, RequestValidationError):
        places = {".".join(str(part) for part in problem["loc"]): problem["msg"] for problem in error.errors()}
        text = "; ".join(f"{place}: {message}" for place, message in places.items())
        return GatewayError(422, "invalid_request", text)
    if isinstance(error, PrincipalError):
        if error.by_caller:
            return GatewayError(400, "invalid_principal", str(error))
        logger.error("the principal dependency is wrong: %s", error)
        return GatewayError(500, "invalid_principal", f"the app's principal dependency is wrong: {error}")
    return None


def unauthorized() -> GatewayError:
    # Claude Code shows a message of its own ("Please run /login") for a 401 that names the header `x-api-key`.
    return GatewayError(
        401,
        "invalid_api_key",
        "no valid key was given; send one of this gateway's as 'Authorization: Bearer', or as the API key of your SDK",
        headers={"www-authenticate": "Bearer"},
    )


def unavailable(message: str, headers: Mapping[str, str] | None = None) -> GatewayError:
    return GatewayError(503, "unavailable", message, headers={"retry-after": "5", **(headers or {})})
