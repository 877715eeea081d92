"""A server process on a core of its own: start, memory, processor time, stop."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

START_SECONDS = 30.0


class ServerError(Exception):
    """A server did not start, or ended early; if it ended, the message includes the end of its log."""


class Server:
    """A process `python -m <module> <arguments> --port <a free port>`; a context manager that ends it."""

    def __init__(
        self, name: str, module: str, *arguments: str, core: int | str, log: Path, env: dict[str, str] | None = None
    ) -> None:
        self.name = name
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = [sys.executable, "-m", module, *arguments, "--port", str(self.port)]
        self._core = core
        self._log = log
        self._env = env or {}

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._popen = subprocess.Popen(
                ["taskset", "--cpu-list", str(self._core), *self._command],
                env={**os.environ, **self._env},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._process = psutil.Process(self._popen.pid)
        try:
            self._await_port()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    @property
    def rss(self) -> int:
        """Resident memory in bytes, of this process without its children."""
        return int(self._process.memory_info().rss)

    @property
    def cpu_seconds(self) -> float:
        """Processor time so far in seconds: user and system, of all threads and workers, with a resolution of 10 ms."""
        processes = [self._process, *self._process.children(recursive=True)]
        return float(sum(times.user + times.system for times in (one.cpu_times() for one in processes)))

    def settle(self, limit: float = 10.0) -> None:
        """Wait until the process is idle, so that its late work is not counted for another server."""
        deadline = time.monotonic() + limit
        before = self.cpu_seconds
        while time.monotonic() < deadline:
            time.sleep(0.1)
            after = self.cpu_seconds
            if after - before <= 0.01:
                return
            before = after

    def check(self) -> None:
        """Raise `ServerError` if the process has ended."""
        if self._popen.poll() is not None:
            said = self._log.read_text(encoding="utf-8", errors="replace")[-2000:]
            raise ServerError(f"{self.name} ended with status {self._popen.returncode}:\n{said}")

    def _await_port(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            self.check()
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                if time.monotonic() > deadline:
                    raise ServerError(f"{self.name} did not listen within {START_SECONDS:.0f} s") from None
                time.sleep(0.05)
            else:
                return

    def _stop(self) -> None:
        self._popen.terminate()
        try:
            self._popen.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()


def asgi_server(name: str, factory: str, *, core: int, log: Path, env: dict[str, str]) -> Server:
    """uvicorn on uvloop and httptools, without access log, with its other defaults."""
    arguments = ("--factory", factory, "--loop", "uvloop", "--http", "httptools", "--no-access-log")
    return Server(name, "uvicorn", *arguments, "--log-level", "warning", core=core, log=log, env=env)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
