"""The smallest app with a gateway, for a server process of its own: `uvicorn tests.e2e.gateway.plain_app:app`."""

from __future__ import annotations

from fastapi import FastAPI

from fastapi_aibridge import AIBridge

app = FastAPI()
app.include_router(AIBridge().router, prefix="/ai")
