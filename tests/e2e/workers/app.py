"""An app for several worker processes, with a route that tells which of them responded."""

from __future__ import annotations

import os

from fastapi import FastAPI

from fastapi_aibridge import AIBridge

app = FastAPI()
app.include_router(AIBridge().router, prefix="/ai")


@app.get("/pid")
async def pid() -> int:
    return os.getpid()
