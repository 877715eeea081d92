"""The app that the cluster's servers run: a gateway configured by the environment."""

from __future__ import annotations

from fastapi import FastAPI

from fastapi_aibridge import AIBridge

app = FastAPI()
app.include_router(AIBridge().router, prefix="/ai")
