"""Uvicorn in a process of its own, as an operator starts it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

from tests.loopback import free_port
from tests.waiting import until

from . import client

ROOT = Path(__file__).parents[3]
STARTING = 300.0
"""Seconds that a server may take to start: a busy machine starts slowly."""
STOPPING = 20.0


class UvicornProcess:
    """A server on a free port; a context manager that is entered once the server is ready.

    It runs in the directory and appends to `log` there. It gets this process's environment without its settings, and
    the one given.
    """

    def __init__(
        self,
        directory: Path,
        environment: Mapping[str, str],
        *options: str,
        app: str = "tests.e2e.gateway.plain_app:app",
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = directory / "log"
        others = {name: value for name, value in os.environ.items() if not name.upper().startswith("AIBRIDGE_")}
        self._environment = {**others, "PYTHONPATH": str(ROOT), **environment}
        self._arguments = ("-m", "uvicorn", app, "--port", str(self.port), *options)

    async def __aenter__(self) -> Self:
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, *self._arguments, cwd=self.log.parent, env=self._environment, stdout=log, stderr=log
            )
        try:
            await until(self._is_ready, STARTING)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            self.process.terminate()
        try:
            await asyncio.wait_for(self.process.wait(), STOPPING)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()

    async def _is_ready(self) -> bool:
        assert self.process.returncode is None, self.log.read_text(errors="replace")
        try:
            return (await client.request(self.port, "GET", "/ai/readyz")).status == 200
        except (OSError, EOFError):
            return False
