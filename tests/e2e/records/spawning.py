"""Serve gateways in processes of their own, which a test may kill: `python -m tests.e2e.records.spawning`.

Each line of the input is JSON with the `port` to listen on and the `environment`; it forks one gateway, which is there
within a fraction of a second. The output has the process ids; the end of the input kills all gateways.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
from typing import Any

import alembic.command
import alembic.script
import asyncpg  # type: ignore[import-untyped]
import sqlalchemy.dialects.postgresql.asyncpg
import uvicorn
import uvicorn.lifespan.on
import uvicorn.protocols.http.httptools_impl
import uvloop
from fastapi import FastAPI

from fastapi_aibridge import AIBridge

LOADED = (alembic, asyncpg, sqlalchemy, uvloop)
"""Modules that a gateway would otherwise import at its start."""


def serve(port: int, environment: dict[str, str]) -> None:
    """Serve a gateway at `/ai` by uvicorn, without the access log."""
    os.environ.update(environment)
    logging.basicConfig(level=logging.WARNING)
    app = FastAPI()
    app.include_router(AIBridge().router, prefix="/ai")
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    started: list[int] = []
    try:
        for line in sys.stdin:
            order: dict[str, Any] = json.loads(line)
            pid = os.fork()
            if not pid:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                try:
                    serve(**order)
                finally:
                    os._exit(0)
            started.append(pid)
            print(pid, flush=True)
    finally:
        for pid in started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
