"""The workers on one database: the settings in force on each, and the wait until all have applied a change."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ..recorder.clock import NOW
from ..recorder.cursor import from_microseconds
from ..recorder.database import Database
from ..recorder.presence import Presence
from ..recorder.text import cut, storable
from .worker import FailedWorker, Worker, WorkersOutcome

log = logging.getLogger(__name__)

Rows = list[Row[Any]]

_LONGEST_ERROR = 1000
"""Bytes."""
_POLL = 0.05
_SLOWEST_POLL = 0.25


class Workers:
    """One worker among the others on its database. It is a member as long as its recorder is present."""

    def __init__(self, database: Database, presence: Presence) -> None:
        self._database = database
        self._presence = presence

    async def join(self) -> None:
        """Become a member, so that changes wait for this worker. Must come before it reads versions: it then sees each
        change, or the change waits for it. Raises `RecorderUnavailable`.
        """
        with self._database.needed():
            async with self._database.reading() as connection:
                now = await connection.scalar(select(NOW))
            await self._presence.set_columns(started_at=now)

    async def leave(self) -> None:
        """Cease to be a member: this worker takes no new requests."""
        await self._tell(started_at=None)

    async def report(self, seen: int, provider_version: int, *, error: str | None = None) -> None:
        """Report the settings' version that this worker has tried, and put in force unless there is an `error`."""
        told = {
            "config_seen": seen,
            "provider_version": provider_version,
            "error": None if error is None else cut(storable(error), _LONGEST_ERROR),
        }
        await self._tell(**(told | {"config_version": seen} if error is None else told))

    async def list(self) -> list[Worker]:
        """Return all live workers, in the order of their start. Raises what the driver raises."""
        async with self._database.reading() as connection:
            rows = await self.rows(connection)
        return [
            Worker(
                id=row.id,
                host=row.host.partition("/")[0],
                pid=row.pid,
                started_at=from_microseconds(row.started_at),
                last_seen=from_microseconds(row.heartbeat_at),
                provider_version=row.provider_version,
                config_version=row.config_version,
                error=row.error,
            )
            for row in sorted(rows, key=lambda row: (row.started_at, row.id))
        ]

    async def outcome(self, version: int, rows: Rows, *, within: float) -> WorkersOutcome:
        """Wait until all workers have tried this version of the settings, for `within` seconds at most.

        `rows` are the members at the time of the change, for when the database cannot be read. This worker itself has
        the version in force.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within
        pause = _POLL
        while True:
            try:
                async with asyncio.timeout_at(deadline), self._database.reading() as connection:
                    rows = await self.rows(connection)
            except Exception as error:  # noqa: BLE001 - drivers have errors of their own
                log.warning("the other workers cannot be seen: %s", type(error).__name__)
            else:
                if all(self._has_tried(row, version) for row in rows):
                    break
            if loop.time() + pause >= deadline:
                break
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _SLOWEST_POLL)
        tried = [row for row in rows if self._has_tried(row, version)]
        failed = [
            FailedWorker(row.id, row.error) for row in tried if row.error is not None and row.id != self._presence.id
        ]
        return WorkersOutcome(applied=len(tried) - len(failed), failed=failed, silent=len(rows) - len(tried))

    async def rows(self, connection: AsyncConnection) -> Rows:
        """Return the rows of all live workers."""
        return [row for row in await self._presence.live_rows(connection) if row.started_at is not None]

    async def _tell(self, **told: Any) -> None:
        try:
            await self._presence.set_columns(**told)
        except Exception as error:  # noqa: BLE001 - drivers have errors of their own; the next heartbeat tells it
            log.warning("the other workers could not be told: %s", type(error).__name__)

    def _has_tried(self, row: Row[Any], version: int) -> bool:
        # The worker's own row may not show it yet, if the database has just become unavailable.
        return row.id == self._presence.id or (row.config_seen is not None and row.config_seen >= version)
