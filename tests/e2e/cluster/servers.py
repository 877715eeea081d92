"""Servers that stand for machines: uvicorn with several workers each, called in turn."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from tests.e2e.gateway import client
from tests.e2e.gateway.client import Answer
from tests.loopback import free_port

ADMIN = "t-admin"
WORKERS = 2
"""Workers of each server."""
_ROOT = Path(__file__).parents[3]


class Cluster:
    """Servers that run while the context is open. All workers read `config`, a TOML file that tests may replace."""

    def __init__(self, directory: Path, servers: int, **settings: str) -> None:
        self.config = directory / "aibridge.toml"
        self.log = directory / "log"
        self._settings = {
            "ADMIN_TOKEN": ADMIN,
            "CONFIG_FILE": str(self.config),
            "SHUTDOWN_GRACE": "1",
            **settings,
        }
        self._ports = [free_port() for _ in range(servers)]
        self._turns = itertools.cycle(self._ports)
        self._servers: list[subprocess.Popen[bytes]] = []
        self.generation = {"openai": 0, "managed": 0}
        """The number of the latest key that is known to be in force on all workers, by provider."""

    def configure(self, text: str) -> None:
        """Replace the settings file atomically, so that no worker reads half of it."""
        draft = self.config.with_suffix(".new")
        draft.write_text(text)
        draft.replace(self.config)

    async def __aenter__(self) -> Self:
        environment = {f"AIBRIDGE_{name}": value for name, value in self._settings.items()}
        for port in self._ports:
            with self.log.open("ab") as log:
                command = [sys.executable, "-m", "uvicorn", "tests.e2e.cluster.app:app", "--port", str(port)]
                command += ["--workers", str(WORKERS), "--no-access-log", "--log-level", "warning"]
                self._servers.append(
                    subprocess.Popen(  # noqa: ASYNC220 - it does not wait
                        command, cwd=_ROOT, env={"PYTHONPATH": str(_ROOT), **environment}, stdout=log, stderr=log
                    )
                )
        await self.complete()
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            server.send_signal(signal.SIGTERM)
        for server in self._servers:
            try:
                await asyncio.to_thread(server.wait, 20)
            except subprocess.TimeoutExpired:
                server.kill()

    def next_port(self) -> int:
        """Return the port of the server whose turn it is."""
        return next(self._turns)

    async def request(self, method: str, path: str, body: bytes = b"") -> Answer:
        return await client.request(self.next_port(), method, f"/ai/admin{path}", body, key=ADMIN)

    async def ask(self, path: str) -> Any:
        answer = await self.request("GET", path)
        assert answer.status == 200, answer
        return json.loads(answer.body)

    async def complete(self, seconds: float = 60) -> list[dict[str, Any]]:
        """Return the workers once all of them run with the same settings. Raises `TimeoutError`."""
        async with asyncio.timeout(seconds):
            while True:
                try:
                    items: list[dict[str, Any]] = (await self.ask("/workers"))["items"]
                except OSError:
                    items = []  # the server does not listen yet
                versions = {item["config_version"] for item in items}
                if len(items) == WORKERS * len(self._ports) and len(versions) == 1 and None not in versions:
                    return items
                await asyncio.sleep(0.1)

    async def records(self) -> list[dict[str, Any]]:
        """Return all interceptions once none of them runs."""
        async with asyncio.timeout(60):
            while True:
                found: list[dict[str, Any]] = []
                cursor = ""
                while True:
                    page = await self.ask(f"/interceptions?limit=500{cursor}")
                    found += page["items"]
                    if page["next_cursor"] is None:
                        break
                    cursor = f"&cursor={page['next_cursor']}"
                if all(item["status"] != "running" for item in found):
                    return found
                await asyncio.sleep(0.5)
