"""Servers that stand for machines: uvicorn with several workers each, called in turn."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path
from typing import Any, Self

from tests.e2e.gateway import client
from tests.e2e.gateway.client import Answer
from tests.e2e.gateway.process import UvicornProcess

ADMIN = "t-admin"
WORKERS = 2
"""Workers of each server."""


class Cluster:
    """Servers that run while the context is open. All workers read `config`, a TOML file that tests may replace."""

    def __init__(self, directory: Path, servers: int, **settings: str) -> None:
        self.config = directory / "aibridge.toml"
        values = {"ADMIN_TOKEN": ADMIN, "CONFIG_FILE": str(self.config), "SHUTDOWN_GRACE": "1", **settings}
        environment = {f"AIBRIDGE_{name}": value for name, value in values.items()}
        options = ("--workers", str(WORKERS), "--no-access-log", "--log-level", "warning")
        self._servers = [UvicornProcess(directory, environment, *options) for _ in range(servers)]
        self._turns = itertools.cycle(server.port for server in self._servers)
        self.generation = {"openai": 0, "managed": 0}
        """The number of the latest key that is known to be in force on all workers, by provider."""

    def configure(self, text: str) -> None:
        """Replace the settings file atomically, so that no worker reads half of it."""
        draft = self.config.with_suffix(".new")
        draft.write_text(text)
        draft.replace(self.config)

    async def __aenter__(self) -> Self:
        await asyncio.gather(*(server.__aenter__() for server in self._servers))
        await self.complete()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(server.__aexit__() for server in self._servers))

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
                if len(items) == WORKERS * len(self._servers) and len(versions) == 1 and None not in versions:
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
