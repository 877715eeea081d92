"""The app under soak: it runs in a process of its own, with a route that reports the resources it holds."""

from __future__ import annotations

import asyncio
import gc
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from fastapi_aibridge import AIBridge, Principal
from fastapi_aibridge.mcp.server import MCPServer

USERS = 32


class SomeHaveTools:
    """MCP servers for one principal in four, so that the others' responses are relayed byte for byte."""

    def __init__(self, url: str) -> None:
        self._url = url

    def build(self, principal: Principal) -> Sequence[MCPServer]:
        return [MCPServer(name="box", url=self._url)] if has_tools(int(principal.initiator_id[1:])) else []


def has_tools(user: int) -> bool:
    return user % 4 == 0


def build() -> FastAPI:
    """Build the app for `uvicorn --factory`; its settings come from the environment."""
    aibridge = AIBridge(mcp=SomeHaveTools(os.environ["SOAK_MCP"]))
    app = FastAPI()
    app.include_router(aibridge.router, prefix="/ai")

    @app.get("/held")
    async def held() -> dict[str, Any]:
        gc.collect()
        metrics = aibridge.pool.metrics()
        tasks = Counter(getattr(task.get_coro(), "__qualname__", "?") for task in asyncio.all_tasks())
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")  # noqa: ASYNC240
        return {
            "tasks": dict(tasks),
            "descriptors": len(os.listdir("/proc/self/fd")),  # noqa: PTH208
            "leases": metrics.leases,
            "draining": metrics.draining,
            "bridges": metrics.size,
            "resident": resident,
            "evictions": dict(metrics.evictions),
        }

    return app
