"""An app for several worker processes: it tells which of them answered."""

from __future__ import annotations

import os

from fastapi import FastAPI

from fastapi_aibridge import AIBridge
from fastapi_aibridge.recorder.memory import MemoryRecorder

app = FastAPI()
app.include_router(AIBridge(recorder=MemoryRecorder()).router, prefix="/ai")


@app.get("/pid")
async def pid() -> int:
    return os.getpid()
