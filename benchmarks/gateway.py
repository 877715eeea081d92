"""The app under test: a plain FastAPI app with the bridge's router at `/ai`, as a user would write it."""

from __future__ import annotations

import os
from typing import Any

from fastapi import FastAPI

from fastapi_aibridge import AIBridge, Settings

from .load import CLIENT_KEY
from .streams import SLOW
from .upstream import PACED

QUIET_KEY = "k-quiet"


def build() -> FastAPI:
    """The app for `uvicorn --factory`; `BENCH_UPSTREAM` is the provider, `BENCH_RECORDER` the URL to record to."""
    upstream, recorder = os.environ["BENCH_UPSTREAM"], os.environ.get("BENCH_RECORDER")

    def provider(type_: str, base_url: str) -> dict[str, Any]:
        return {"type": type_, "base_url": base_url, "api_key": "sk-upstream-0123456789"}

    values: dict[str, Any] = {
        "providers": {
            "openai": provider("openai", f"{upstream}/v1"),
            "anthropic": provider("anthropic", upstream),
            "paced": provider("openai", f"{upstream}{PACED}/v1"),
            "slow": provider("openai", f"{upstream}{SLOW}/v1"),
        },
        "client_keys": {"bench": CLIENT_KEY, "quiet": QUIET_KEY},
        "admin_token": "bench-admin",
        "recorder": {"url": recorder} if recorder else {"enabled": False},
    }
    app = FastAPI()
    app.include_router(AIBridge(settings=Settings(**values)).router, prefix="/ai")
    return app
