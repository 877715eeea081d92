"""Migration of a database's tables to this release's schema; several processes may run it at the same time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncConnection

from .database import Database

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0031"
"""The newest revision; repeated here so that a start without migrations need not import alembic."""

VERSION_TABLE = "aibridge_version"
_LOCK = 0x41_49_42_52_49_44_47_45
_in_process = threading.Lock()


def is_ours(name: str | None, kind: str, parents: Mapping[Any, Any]) -> bool:  # noqa: ARG001
    """Return whether alembic should look at a table: the database may also hold the app's tables."""
    return kind != "table" or (name or "").startswith("aibridge_")


async def migrate(database: Database) -> bool:
    """Upgrade to `HEAD`. Returns whether there was anything to do."""
    async with database.engine.connect() as connection:
        if await _revision(connection) == HEAD:
            return False
    async with _alone(), database.writing() as connection:
        if not database.is_sqlite:
            await connection.execute(text("SET LOCAL statement_timeout = 0"))
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        if await _revision(connection) == HEAD:
            return False
        await connection.run_sync(_upgrade)
    return True


@asynccontextmanager
async def _alone() -> AsyncIterator[None]:
    """Allow one migration at a time in this process, across event loops and threads: alembic keeps its state in module
    globals.
    """
    # Polled, because no lock can be awaited from several event loops.
    while not _in_process.acquire(blocking=False):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        _in_process.release()


async def _revision(connection: AsyncConnection) -> str | None:
    if not await connection.run_sync(lambda sync: inspect(sync).has_table(VERSION_TABLE)):
        return None
    revision: str | None = (await connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}"))).scalar()  # noqa: S608
    return revision


def alembic_config(connection: Connection | None = None) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "fastapi_aibridge.recorder:migrations")
    config.attributes["connection"] = connection
    return config


def _upgrade(connection: Connection) -> None:
    from alembic import command

    command.upgrade(alembic_config(connection), "head")
