"""Version numbers in the recorder's database, which count the changes of data that all workers hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import BigInteger, Column, Table, Text, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ..recorder.clock import NOW
from ..recorder.database import Database, insert
from ..recorder.schema import metadata

SETTINGS = "settings"
"""The version of everything that a reload reads: files, the environment, managed settings."""
CLIENT_KEYS = "client_keys"

data_versions = Table(
    "aibridge_data_versions",
    metadata,
    # The kind of data, such as `settings`, whose changes are counted.
    Column("name", Text, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
)

_CHANNEL = "aibridge_data_versions"
"""The channel of PostgreSQL's LISTEN and NOTIFY."""


async def bump(connection: AsyncConnection, name: str) -> int:
    """Raise the version of `name`, of which all workers are notified, and return it.

    Call it in the transaction that makes the change: workers are notified when, and only if, it is committed. Until
    then, concurrent bumps of the same name wait.
    """
    version: int = await connection.scalar(
        insert(connection, data_versions)
        .values(name=name, version=1, changed_at=NOW)
        .on_conflict_do_update(
            index_elements=["name"], set_={"version": data_versions.c.version + 1, "changed_at": NOW}
        )
        .returning(data_versions.c.version)
    )
    if connection.dialect.name == "postgresql":
        await connection.execute(select(func.pg_notify(_CHANNEL, name)))
    return version


async def read_version(connection: AsyncConnection, name: str) -> int:
    """Return the version of `name`; 0 if it has never changed."""
    found = await connection.scalar(select(data_versions.c.version).where(data_versions.c.name == name))
    return found or 0


class VersionReader:
    """Reads the versions over one connection, replaced at the next read after it broke. Reads must not overlap."""

    def __init__(self, database: Database, notified: Callable[[], None]) -> None:
        self._database = database
        self._notified = notified
        self._connection: AsyncConnection | None = None

    async def read(self) -> Mapping[str, int]:
        """The versions by their names. Raises what the driver raises."""
        try:
            if self._connection is None:
                self._connection = await self._opened()
            rows = await self._connection.execute(select(data_versions.c.name, data_versions.c.version))
            return {row.name: row.version for row in rows}
        except BaseException:
            await self._drop()
            raise

    async def aclose(self) -> None:
        await self._drop()

    async def _opened(self) -> AsyncConnection:
        connection = await self._database.engine.connect()
        try:
            # Autocommit, so that no transaction stays open between two reads.
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            if not self._database.is_sqlite:
                driver: Any = (await connection.get_raw_connection()).driver_connection
                await driver.add_listener(_CHANNEL, self._hear)
        except BaseException:
            await connection.invalidate()
            await connection.close()
            raise
        return connection

    def _hear(self, *_: object) -> None:
        self._notified()

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            # Not returned to the pool: it listens, or is broken.
            await connection.invalidate()
            await connection.close()
