"""Machines' worth of workers: uvicorn with several workers for each server, behind one round-robin."""

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
"""Of each server."""
_ROOT = Path(__file__).parents[3]


class Cluster:
    """Runs while the block does. All workers read `config`, a TOML file that the test may replace."""

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
        """Of each provider: the number of the key that has been said to be in force everywhere."""

    def configure(self, text: str) -> None:
        """At once, as far as a worker can see that reads it meanwhile."""
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
        """Whose turn it is."""
        return next(self._turns)

    async def request(self, method: str, path: str, body: bytes = b"") -> Answer:
        return await client.request(self.next_port(), method, f"/ai/admin{path}", body, key=ADMIN)

    async def ask(self, path: str) -> Any:
        answer = await self.request("GET", path)
        assert answer.status == 200, answer
        return json.loads(answer.body)

    async def complete(self, seconds: float = 60) -> list[dict[str, Any]]:
        """The workers, once as many are there as there should be, all on the same settings."""
        async with asyncio.timeout(seconds):
            while True:
                try:
                    items: list[dict[str, Any]] = (await self.ask("/workers"))["items"]
                except OSError:
                    items = []  # it does not listen yet
                versions = {item["config_version"] for item in items}
                if len(items) == WORKERS * len(self._ports) and len(versions) == 1 and None not in versions:
                    return items
                await asyncio.sleep(0.1)

    async def records(self) -> list[dict[str, Any]]:
        """All interceptions, once none of them runs."""
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
