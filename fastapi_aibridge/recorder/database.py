"""The recorder's database: opened from a URL, with transactions that behave alike on SQLite and PostgreSQL."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Table, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from ..errors import ConfigurationError, RecorderUnavailable
from ..installing import install_command
from .batch import Sink
from .postgres import PostgresSink
from .problems import database_place, database_problem
from .sqlite import SQLiteSink, enter_wal

_CONNECT_TIMEOUT = 10.0
"""Seconds to connect to PostgreSQL."""
_STATEMENT_TIMEOUT = 30_000
"""Milliseconds after which PostgreSQL cancels a statement; our own driver gives up a little later."""


class Database:
    """A database: one engine for reading and upkeep, and a separate sink for a writer. Not touched before `open`.

    With `?synchronous=normal` in a SQLite URL, a commit survives a crash of the process at once, and a crash of the
    machine only a little later. An in-memory SQLite database becomes a temporary file for its several connections.
    """

    engine: AsyncEngine

    def __init__(self, url: str | URL) -> None:
        try:
            parsed = make_url(url)
        except ArgumentError:
            raise ConfigurationError("the recorder's URL is not a database URL") from None
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._synchronous = "FULL"
        if self.is_sqlite:
            asked = parsed.query.get("synchronous", "full")
            if asked not in {"full", "normal"}:
                raise ConfigurationError(f"synchronous is 'full' or 'normal', not {asked!r}")
            self._synchronous = str(asked).upper()
            self.url = parsed.set(drivername="sqlite+aiosqlite").difference_update_query(["synchronous"])
        elif parsed.get_backend_name() == "postgresql":
            self.url = parsed.set(drivername="postgresql+asyncpg")
        else:
            raise ConfigurationError(f"records go to SQLite or PostgreSQL, not to {parsed.get_backend_name()!r}")

    def unusable(self, error: BaseException) -> str:
        """Describe the error on one line that names the setting and the database."""
        return f"AIBRIDGE_RECORDER__URL: {database_place(self.url)}: {database_problem(error)}"

    @contextmanager
    def needed(self) -> Iterator[None]:
        """Raise `RecorderUnavailable` for whatever the driver raises, with a text for the operator."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - drivers have errors of their own
            raise RecorderUnavailable(self.unusable(error)) from None

    def open(self, *, create: bool) -> None:
        if self.is_sqlite:
            self.engine = create_async_engine(self._with_file(create=create), hide_parameters=True)
            event.listen(self.engine.sync_engine, "connect", _prepare_sqlite)
            return
        try:
            self.engine = create_async_engine(
                self.url,
                pool_pre_ping=True,
                connect_args={
                    "timeout": _CONNECT_TIMEOUT,
                    "command_timeout": 1.5 * _STATEMENT_TIMEOUT / 1000,
                    "server_settings": {"statement_timeout": str(_STATEMENT_TIMEOUT)},
                },
                hide_parameters=True,
            )
        except ModuleNotFoundError as error:
            raise ConfigurationError(f"PostgreSQL needs a driver: {install_command('postgres')}") from error

    def _with_file(self, *, create: bool) -> URL:
        name = self.url.database
        if not name or name == ":memory:":
            self._directory = tempfile.TemporaryDirectory(prefix="aibridge-")
            return self.url.set(database=str(Path(self._directory.name) / "records.db"))
        if not name.startswith("file:"):
            path = Path(name)
            if not create:
                if not path.exists():
                    raise ConfigurationError(f"AIBRIDGE_RECORDER__URL: there is no database {str(path.absolute())!r}")
                return self.url
            try:
                # The file will hold prompts, so only its owner may read it. SQLite's log files inherit the mode.
                os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            except OSError as error:
                missing = "" if path.parent.is_dir() else f": there is no directory {str(path.parent.absolute())!r}"
                raise ConfigurationError(
                    f"AIBRIDGE_RECORDER__URL: the database {name!r} cannot be written{missing or f': {error.strerror}'}"
                ) from None
        return self.url

    def sink(self) -> Sink:
        """Return a new connection for a writer."""
        if self.is_sqlite:
            return SQLiteSink(self.engine.url, synchronous=self._synchronous)
        return PostgresSink(self.engine)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Open a read transaction in which all reads see the same snapshot."""
        async with self.engine.connect() as connection:
            if self.is_sqlite:
                await connection.exec_driver_sql("BEGIN")
            else:
                await connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """Open a short write transaction. On SQLite it takes the write lock at once, so it cannot fail half way."""
        async with self.engine.connect() as connection:
            if self.is_sqlite:
                await connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection
            await connection.commit()

    async def close(self) -> None:
        await self.engine.dispose()
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None


def insert(connection: AsyncConnection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """Return an INSERT of the database's dialect, which can have an ON CONFLICT clause."""
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)


@contextmanager
def unavailable(what: str) -> Iterator[None]:
    """Raise `RecorderUnavailable` for whatever the driver raises; `what` says what cannot be done."""
    try:
        yield
    except Exception as error:
        raise RecorderUnavailable(f"{what}: {type(error).__name__}") from error


def _prepare_sqlite(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    enter_wal(cursor.execute)
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.close()
