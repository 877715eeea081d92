"""The end of a process: new work is refused, streams are ended, and every record is written."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from ...pool.clock import settled
from ...upstream.app import CHAT, running
from ...upstream.raw import Answer, RawUpstream
from ..gateway.process import UvicornProcess

pytestmark = pytest.mark.anyio

EVENT = b'data: {"id":"c1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
OK = Answer(200, b'{"id":"c1","object":"chat.completion","choices":[]}')
ENDLESS = Answer(200, EVENT, {"content-type": "text/event-stream", "content-length": "100000"})
KEY = {"authorization": "Bearer key-of-alice"}


async def test_health_needs_no_credential() -> None:
    """The health and readiness routes need no key, and their responses are not cached."""
    async with running(OK) as app:
        for path in ("healthz", "readyz"):
            answer = await app.client.get(f"/ai/{path}")
            assert answer.status_code == 200
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert (await app.client.head(f"/ai/{path}")).status_code == 200
        assert (await app.client.get("/ai/readyz")).json() == {"status": "ready"}


async def test_not_ready_without_records() -> None:
    """A recorder that is unavailable makes the process not ready, but does not end it."""
    async with running(OK) as app:
        app.recorder.available = False  # type: ignore[attr-defined]
        answer = await app.client.get("/ai/readyz")
        assert (answer.status_code, answer.json()["status"]) == (503, "records cannot be written")
        assert (await app.client.get("/ai/healthz")).status_code == 200


async def test_draining_refuses_new_work() -> None:
    """A request during draining gets 503 in the provider's shape, and its connection is closed."""
    async with running(OK) as app:
        assert (await app.chat()).status_code == 200
        app.aibridge.drain()
        app.aibridge.drain()
        await settled()
        answer = await app.chat()
        assert (answer.status_code, answer.headers["connection"]) == (503, "close")
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["error"]["type"] == "server_error"
        assert (await app.client.get("/ai/readyz")).status_code == 503
        assert (await app.client.get("/ai/healthz")).status_code == 200


async def test_signal_goes_on_to_the_server() -> None:
    """A signal makes the plugin drain and reaches the server's handler, which is restored in the end."""
    heard: list[int] = []

    def server(number: int, _: object) -> None:
        heard.append(number)

    before = signal.signal(signal.SIGTERM, server)
    try:
        async with running(OK) as app:
            assert app.aibridge._host.unready() is None
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert heard == [signal.SIGTERM]
            assert app.aibridge._host.unready() == "shutting down"
        assert signal.getsignal(signal.SIGTERM) is server
    finally:
        signal.signal(signal.SIGTERM, before)


def served(directory: Path, upstream: str, *options: str) -> UvicornProcess:
    environment = {
        "AIBRIDGE_PROVIDERS__OPENAI__BASE_URL": upstream,
        "AIBRIDGE_PROVIDERS__OPENAI__API_KEY": "sk-0123456789abcdef",
        "AIBRIDGE_CLIENT_KEYS__ALICE": "key-of-alice",
        "AIBRIDGE_RECORDER__URL": f"sqlite+aiosqlite:///{directory}/records.db",
        "AIBRIDGE_SHUTDOWN_GRACE": "0.5",
    }
    return UvicornProcess(directory, environment, *options)


@pytest.mark.parametrize("options", [(), ("--timeout-graceful-shutdown", "10")], ids=["patient", "impatient"])
async def test_sigterm(tmp_path: Path, options: tuple[str, ...]) -> None:
    """After SIGTERM a stream runs through the grace period and ends in an error event, and all records are whole."""
    async with (
        RawUpstream(OK, ENDLESS) as upstream,
        served(tmp_path, upstream.base_url, *options) as server,
        httpx.AsyncClient(base_url=server.url, timeout=20) as client,
    ):
        assert (await client.post(CHAT, headers=KEY, json={"model": "m", "messages": []})).status_code == 200
        body = {"model": "m", "messages": [], "stream": True}
        async with client.stream("POST", CHAT, headers=KEY, json=body) as answer:
            pieces = answer.aiter_raw()
            assert await anext(pieces) == EVENT
            asked = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            rest = b"".join([piece async for piece in pieces])
            took = time.monotonic() - asked
        assert rest.startswith(b"data: ")
        assert b"error" in rest
        assert 0.4 < took < 15
        await asyncio.wait_for(server.process.wait(), 10)
        with closing(sqlite3.connect(tmp_path / "records.db")) as database:
            statuses = [
                row[0] for row in database.execute("select status from aibridge_interceptions order by started_at")
            ]
        assert statuses == ["completed", "failed"]
