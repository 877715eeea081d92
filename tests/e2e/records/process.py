"""A gateway in a process of its own, on the test's database and upstream."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from tests.e2e.gateway import client
from tests.e2e.gateway.client import KEY, Answer
from tests.loopback import free_port

ADMIN = "t-admin"
CHAT = "/ai/openai/v1/chat/completions"
LIMIT = 90.0


class Spawner:
    """The process that gateways are forked from. Use it as a context manager."""

    def __init__(self, log: Path) -> None:
        self._log = log

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.e2e.records.spawning"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(10)

    def spawn(self, port: int, environment: dict[str, str]) -> int:
        """Fork a gateway that will listen on the port; return its process id."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"port": port, "environment": environment}) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    @property
    def said(self) -> str:
        """The standard error output of all gateways."""
        return self._log.read_text(errors="replace")


class GatewayProcess:
    """A gateway that can be started again after it was killed, on the same port and the same database."""

    def __init__(self, spawner: Spawner, upstream: str, recorder: str, **settings: str) -> None:
        self._spawner = spawner
        self.port = free_port()
        values = {
            "PROVIDERS__OPENAI__BASE_URL": upstream,
            "PROVIDERS__OPENAI__API_KEY": "sk-central",
            "PROVIDERS__OPENAI__MAX_RETRIES": "0",
            "CLIENT_KEYS__ALICE": KEY,
            "ADMIN_TOKEN": ADMIN,
            "SHUTDOWN_GRACE": "1",
            "RECORDER__URL": recorder,
            **settings,
        }
        self._environment = {f"AIBRIDGE_{name}": value for name, value in values.items()}
        self.pid = 0

    async def start(self) -> None:
        """Start the process; return when the gateway is ready."""
        self.pid = await asyncio.to_thread(self._spawner.spawn, self.port, self._environment)
        async with asyncio.timeout(LIMIT):
            while True:
                try:
                    answer = await client.request(self.port, "GET", "/ai/readyz")
                except OSError:
                    os.kill(self.pid, 0)
                    await asyncio.sleep(0.02)
                else:
                    assert answer.status == 200, answer
                    return

    async def kill(self) -> None:
        """Send SIGKILL; return when the process is gone."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """Send SIGTERM, as an orchestrator does; return when the process is gone."""
        await self._end(signal.SIGTERM)

    async def _end(self, number: int) -> None:
        os.kill(self.pid, number)
        async with asyncio.timeout(LIMIT):
            while True:
                try:
                    os.kill(self.pid, 0)
                except ProcessLookupError:
                    return
                await asyncio.sleep(0.01)

    async def ask(self, path: str) -> Any:
        """Return the JSON response of an admin route."""
        answer = await self.request("GET", f"/ai/admin{path}", key=ADMIN)
        assert answer.status == 200, answer
        return json.loads(answer.body)

    async def request(self, method: str, path: str, body: bytes = b"", key: str = KEY) -> Answer:
        return await client.request(self.port, method, path, body, key=key)

    async def records(self, filters: str = "") -> dict[str, dict[str, Any]]:
        """Return all interceptions by their id, read page by page; a duplicate fails the test."""
        found: dict[str, dict[str, Any]] = {}
        cursor = ""
        while True:
            page = await self.ask(f"/interceptions?limit=500{filters}{cursor}")
            for item in page["items"]:
                assert item["id"] not in found
                found[item["id"]] = item
            if page["next_cursor"] is None:
                return found
            cursor = f"&cursor={page['next_cursor']}"
