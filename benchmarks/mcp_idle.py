"""What a bridge with one MCP server costs while nobody uses it, beside sessions of the official client held open."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import multiprocessing
import socket
import statistics
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from typing import Any

import httpx2
import psutil
import uvicorn
from mcp import Client, types
from mcp.client.streamable_http import streamable_http_client
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.models import InitializationOptions

from fastapi_aibridge import Principal
from fastapi_aibridge.mcp.connections import MCPConnections
from fastapi_aibridge.mcp.mcp_tools import MCPTools
from fastapi_aibridge.mcp.server import MCPServer

from .table import Table

PRINCIPALS = 1000
TOOLS = 10
KINDS = {
    "bridge, later protocol": "bridge",
    "bridge, handshake": "bridge-handshake",
    "bridge, handshake, changes announced": "bridge-announcing",
    "official client held open, later protocol": "client",
    "official client held open, handshake": "client-handshake",
}
COLUMNS = ("", "KiB each", "tasks each", "sockets in all", "first list, ms", "next list, ms", "all, s")
NOTE = (
    f"{PRINCIPALS:,} principals, one server with {TOOLS} tools on the same machine, no more than 50 connecting at a "
    "time. The first list is the first principal's; the next is the median of 20 alone afterwards."
)


class _Announcing(Server[Any]):
    def create_initialization_options(self, *_: Any, **__: Any) -> InitializationOptions:
        return super().create_initialization_options(NotificationOptions(tools_changed=True))


def serve(listener: socket.socket, kind: str) -> None:
    """Run the MCP server. It has a process of its own."""

    async def on_list_tools(
        _: ServerRequestContext[Any, Any], __: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        properties = {f"field_{number}": {"type": "string", "description": "A field."} for number in range(8)}
        schema = {"type": "object", "properties": properties}
        names = [f"tool_{number}" for number in range(TOOLS)]
        return types.ListToolsResult(
            tools=[types.Tool(name=name, description="Does a thing. " * 10, input_schema=schema) for name in names]
        )

    maker = _Announcing if kind.endswith("announcing") else Server
    app: Any = maker("idle", on_list_tools=on_list_tools).streamable_http_app()

    async def older(scope: Any, receive: Any, send: Any) -> None:
        if (b"mcp-protocol-version", b"2026-07-28") in scope.get("headers", ()):
            await send({"type": "http.response.start", "status": 400, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        else:
            await app(scope, receive, send)

    served = app if kind in ("bridge", "client") else older
    config = uvicorn.Config(served, log_level="critical", timeout_graceful_shutdown=0)
    uvicorn.Server(config).run(sockets=[listener])


async def bridges(url: str) -> dict[str, float]:
    async with MCPConnections() as connections:
        servers = [MCPServer(name="idle", url=url)]
        held: list[MCPTools] = []

        async def connect(number: int) -> None:
            tools = MCPTools(servers, Principal(f"user-{number}", session_key=f"key-{number}"), connections)
            await tools.start()
            if len(tools.tools) != TOOLS:
                raise RuntimeError("a bridge did not get its tools")
            held.append(tools)

        figures = await _measure(connect)
        await asyncio.gather(*(tools.aclose() for tools in held))
        return figures


async def clients(url: str) -> dict[str, float]:
    async with AsyncExitStack() as stack:
        # All clients share one connection pool, as the bridges do; each client would carry its principal's headers.
        pool = await stack.enter_async_context(httpx2.AsyncHTTPTransport(limits=httpx2.Limits(max_connections=None)))

        async def connect(_: int) -> None:
            own = httpx2.AsyncClient(transport=pool, timeout=60, trust_env=False)
            client = await stack.enter_async_context(Client(streamable_http_client(url, http_client=own)))
            if len((await client.list_tools()).tools) != TOOLS:
                raise RuntimeError("a client did not get its tools")

        return await _measure(connect, at_once=1)  # one task must leave them in the order in which it entered them


async def _measure(connect: Any, *, at_once: int = 50) -> dict[str, float]:
    def memory() -> int:
        gc.collect()
        return int(psutil.Process().memory_info().rss)

    begin = time.perf_counter()
    await connect(-1)
    first = time.perf_counter() - begin
    before, tasks = memory(), len(asyncio.all_tasks())
    numbers = iter(range(PRINCIPALS))

    async def connect_some() -> None:
        for number in numbers:
            await connect(number)

    begin = time.perf_counter()
    if at_once == 1:
        await connect_some()
    else:
        await asyncio.gather(*(connect_some() for _ in range(at_once)))
    took = time.perf_counter() - begin
    alone = []
    for number in range(20):
        begin = time.perf_counter()
        await connect(PRINCIPALS + number)
        alone.append(time.perf_counter() - begin)
    await asyncio.sleep(16)  # longer than idle connections are kept
    return {
        "kib": (memory() - before) / 1024 / (PRINCIPALS + 20),
        "tasks": (len(asyncio.all_tasks()) - tasks) / (PRINCIPALS + 20),
        "sockets": len(psutil.Process().net_connections(kind="tcp")),
        "first": first * 1000,
        "next": statistics.median(alone) * 1000,
        "all": took,
    }


def one(kind: str) -> None:
    """Measure in this process, and print the figures as JSON."""
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        server = multiprocessing.get_context("fork").Process(target=serve, args=(listener, kind), daemon=True)
        server.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
    try:
        httpx2.head(url, timeout=30, trust_env=False)  # any response shows that the server runs
        figures = asyncio.run((clients if kind.startswith("client") else bridges)(url))
    finally:
        server.kill()
        server.join()
    print(json.dumps(figures))


def measure() -> Table:
    """Measure each kind in a process of its own, so that their memory is not mixed."""
    rows = []
    for words, kind in KINDS.items():
        command = [sys.executable, "-m", "benchmarks.mcp_idle", "--one", kind]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        got = json.loads(done.stdout)
        rows.append(
            (
                words,
                f"{got['kib']:.1f}",
                f"{got['tasks']:.1f}",
                f"{got['sockets']:,}",
                f"{got['first']:.1f}",
                f"{got['next']:.1f}",
                f"{got['all']:.1f}",
            )
        )
    return Table("mcp_idle", COLUMNS, rows, NOTE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", choices=KINDS.values(), help=argparse.SUPPRESS)
    kind = parser.parse_args().one
    if kind:
        one(kind)
    else:
        print(measure().markdown())


if __name__ == "__main__":
    main()
