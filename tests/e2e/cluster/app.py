"""What the servers of the cluster serve: a gateway that the environment configures."""

from __future__ import annotations

from fastapi import FastAPI

from fastapi_aibridge import AIBridge

app = FastAPI()
app.include_router(AIBridge().router, prefix="/ai")
