"""The app under test: a plain FastAPI app with the bridge's router at `/ai`, as a user would write it."""

from __future__ import annotations

import json
import os
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from fastapi_aibridge import AIBridge, Principal, Settings

from .load import CLIENT_KEY
from .streams import SLOW
from .upstream import PACED

QUIET_KEY = "k-quiet"
LONG = "/p2000n60"
"""The upstream's prefix for streams that stay open for two minutes."""

_bearer = HTTPBearer()


async def current_user(credentials: Annotated[HTTPAuthorizationCredentials, Depends(_bearer)]) -> str:
    """The caller, found as apps do it: a security scheme, and a dependency that looks the token up."""
    if credentials.credentials != CLIENT_KEY:
        raise HTTPException(401)
    return "bench"


async def current_principal(user: Annotated[str, Depends(current_user)]) -> Principal:
    return Principal(initiator_id=user)


def build() -> FastAPI:
    """The app for `uvicorn --factory`; `BENCH_UPSTREAM` is the provider, `BENCH_RECORDER` the URL to record to.

    With `BENCH_PRINCIPAL` the principal is the app's own dependency; `BENCH_MCP` is the URL of an MCP server,
    `BENCH_REDIS` that of a Redis, and `BENCH_LIMITS` are the settings of limits as JSON.
    """
    upstream, recorder, mcp = (
        os.environ["BENCH_UPSTREAM"],
        os.environ.get("BENCH_RECORDER"),
        os.environ.get("BENCH_MCP"),
    )

    def provider(type_: str, base_url: str) -> dict[str, Any]:
        return {"type": type_, "base_url": base_url, "api_key": "sk-upstream-0123456789"}

    values: dict[str, Any] = {
        "providers": {
            "openai": provider("openai", f"{upstream}/v1"),
            "anthropic": provider("anthropic", upstream),
            "paced": provider("openai", f"{upstream}{PACED}/v1"),
            "slow": provider("openai", f"{upstream}{SLOW}/v1"),
            "long": provider("openai", f"{upstream}{LONG}/v1"),
        },
        "client_keys": {"bench": CLIENT_KEY, "quiet": QUIET_KEY},
        "admin_token": "bench-admin",
        "recorder": {"url": recorder} if recorder else {"enabled": False},
        "mcp_servers": {"bench": {"url": mcp}} if mcp else {},
    }
    if "BENCH_REDIS" in os.environ:
        values["redis_url"] = os.environ["BENCH_REDIS"]
    if "BENCH_LIMITS" in os.environ:
        values["limits"] = json.loads(os.environ["BENCH_LIMITS"])
    principal = current_principal if "BENCH_PRINCIPAL" in os.environ else None
    app = FastAPI()
    app.include_router(AIBridge(settings=Settings(**values), principal=principal).router, prefix="/ai")
    return app
