"""A real nginx with the configuration that `deploy/` ships, in front of two replicas."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from tests.e2e.gateway.server import served
from tests.loopback import free_port
from tests.waiting import until

SHIPPED = Path(__file__).parents[2] / "deploy" / "nginx.conf"
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(NGINX is None and not os.environ.get("CI"), reason="no nginx on this machine"),
]


class Replica:
    """An app that returns its name and the raw path; `/ai/stream` waits for the test before its second event."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.go_on = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        if scope["path"] == "/ai/stream":
            await StreamingResponse(self._events(), media_type="text/event-stream")(scope, receive, send)
            return
        size = len(await request.body())
        raw = scope["raw_path"].decode()
        headers = {"x-replica": self.name, "x-host": request.headers["host"]}
        await PlainTextResponse(f"{raw} {size}", headers=headers)(scope, receive, send)

    async def _events(self) -> AsyncIterator[bytes]:
        yield b"data: 1\n\n"
        await self.go_on.wait()
        yield b"data: 2\n\n"


@asynccontextmanager
async def nginx(directory: Path, ports: list[int]) -> AsyncIterator[str]:
    """The shipped configuration with these ports in place of Docker's host names."""
    assert NGINX is not None, "nginx is missing: apt-get install nginx-light"
    port = free_port()
    text = SHIPPED.read_text()
    replaced = {
        "server gateway:8000;": " ".join(f"server 127.0.0.1:{one};" for one in ports),
        "listen 8080;": f"listen 127.0.0.1:{port};",
        "worker_processes auto;": "worker_processes 1;",
    }
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    (directory / "nginx.conf").write_text(f"daemon off;\npid {directory}/nginx.pid;\n{text}")
    command = [NGINX, "-p", str(directory), "-e", str(directory / "error.log"), "-c", str(directory / "nginx.conf")]
    (directory / "logs").mkdir()
    process = await asyncio.create_subprocess_exec(*command, stdout=DEVNULL, stderr=DEVNULL)
    try:
        await until(lambda: _listens(port) or process.returncode is not None)
        assert process.returncode is None, (directory / "error.log").read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@asynccontextmanager
async def deployed(directory: Path) -> AsyncIterator[tuple[httpx.AsyncClient, list[Replica]]]:
    replicas = [Replica("one"), Replica("two")]
    async with AsyncExitStack() as stack:
        ports = [(await stack.enter_async_context(served(replica, lifespan="off"))).port for replica in replicas]
        url = await stack.enter_async_context(nginx(directory, ports))
        yield await stack.enter_async_context(httpx.AsyncClient(base_url=url)), replicas


async def test_requests_are_spread_over_the_replicas(tmp_path: Path) -> None:
    async with deployed(tmp_path) as (client, _):
        seen = [(await client.get("/ai/openai/v1/models")).headers["x-replica"] for _ in range(4)]
    assert sorted(seen) == ["one", "one", "two", "two"]


async def test_each_event_passes_as_it_comes(tmp_path: Path) -> None:
    async with deployed(tmp_path) as (client, replicas), client.stream("POST", "/ai/stream", content=b"{}") as response:
        events = response.aiter_raw()
        assert await anext(events) == b"data: 1\n\n"
        for replica in replicas:
            replica.go_on.set()
        assert [event async for event in events] == [b"data: 2\n\n"]


async def test_paths_reach_the_gateway_as_they_were_written(tmp_path: Path) -> None:
    """nginx passes an encoded slash on unchanged, because the gateway decides about paths."""
    async with deployed(tmp_path) as (client, _):
        response = await client.get("/ai/openai/v1/models/a%2Fb")
        assert response.text.startswith("/ai/openai/v1/models/a%2Fb ")
        assert response.headers["x-host"] == client.base_url.netloc.decode()


async def test_large_requests_pass(tmp_path: Path) -> None:
    """nginx accepts bodies of the gateway's default limit; the gateway itself refuses larger ones."""
    async with deployed(tmp_path) as (client, _):
        response = await client.post("/ai/openai/v1/responses", content=bytes(32 * 1024 * 1024))
        assert response.text == f"/ai/openai/v1/responses {32 * 1024 * 1024}"


@pytest.mark.parametrize(("path", "status"), [("/ai/admin/interceptions", 403), ("/docs", 404), ("/", 404)])
async def test_nothing_else_is_open(tmp_path: Path, path: str, status: int) -> None:
    async with deployed(tmp_path) as (client, _):
        assert (await client.get(path)).status_code == status
