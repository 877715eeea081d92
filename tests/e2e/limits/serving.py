"""The app that the draining tests run as a process of its own: `uvicorn tests.e2e.limits.serving:app`."""

from __future__ import annotations

from fastapi import FastAPI

from fastapi_aibridge import AIBridge

aibridge = AIBridge()
app = FastAPI()
app.include_router(aibridge.router, prefix="/ai")
