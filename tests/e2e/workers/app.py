"""An app for several worker processes: it tells which of them answered."""

from __future__ import annotations

import os

from fastapi import FastAPI

from fastapi_aibridge import AIBridge

app = FastAPI()
app.include_router(AIBridge().router, prefix="/ai")


@app.get("/pid")
async def pid() -> int:
    return os.getpid()
