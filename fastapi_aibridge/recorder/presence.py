"""Presence of recorders on a database: heartbeats, and recovery of interceptions that dead recorders left running."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from .clock import NOW
from .committer import WriterStats
from .database import Database
from .process import ProcessIdentity
from .recovery import interrupt
from .schema import inbox, interceptions, recorders

log = logging.getLogger(__name__)


class Presence:
    """The presence of one recorder among all recorders on its database.

    A recorder is dead if its process is known to be gone, or if its heartbeat is older than `lease` seconds. Its row
    also holds the columns set with `tell`.
    """

    def __init__(self, database: Database, recorder_id: str, stats: WriterStats, *, lease: float) -> None:
        self._database = database
        self.id = recorder_id
        self._stats = stats
        self._lease = int(lease * 1_000_000)
        self._process = ProcessIdentity.current()
        self._beating = asyncio.Lock()
        self._beating_since: float | None = None
        self._missed: int | None = None
        """The number of commits at the last heartbeat that failed; None after one that succeeded."""
        self._columns: dict[str, Any] = {}

    async def beat(self) -> None:
        """Write a heartbeat. Inserts the row again if another recorder took this one for dead and deleted it."""
        try:
            async with self._beating, self._database.writing() as connection:
                known = await connection.execute(
                    update(recorders).where(recorders.c.id == self.id).values(heartbeat_at=NOW, **self._columns)
                )
                if not known.rowcount:
                    await connection.execute(
                        insert(recorders).values(
                            id=self.id,
                            host=self._process.host,
                            pid=self._process.pid,
                            process_started=self._process.started,
                            heartbeat_at=NOW,
                            **self._columns,
                        )
                    )
        except BaseException:
            self._beating_since = None
            self._missed = self._stats.commits
            raise
        self._missed = None
        if self._beating_since is None:
            self._beating_since = time.monotonic()

    @property
    def is_written(self) -> bool:
        """Whether the database took the last heartbeat, or a commit of records since."""
        return self._missed is None or self._stats.commits > self._missed

    async def set_columns(self, **columns: Any) -> None:
        """Set columns of this recorder's row, now and with each later heartbeat. Raises the driver's errors; the next
        heartbeat then writes the columns.
        """
        self._columns |= columns
        await self.beat()

    async def live_rows(self, connection: AsyncConnection) -> list[Row[Any]]:
        """Return the rows of all recorders whose processes are not known to be gone."""
        rows = (await connection.execute(select(recorders))).all()
        return [row for row in rows if not self._is_gone(row)]

    def _is_gone(self, row: Row[Any]) -> bool:
        return ProcessIdentity(row.host, row.pid, row.process_started).is_gone(self._process)

    async def leave(self) -> None:
        async with self._database.writing() as connection:
            await connection.execute(delete(recorders).where(recorders.c.id == self.id))

    async def recover(self) -> int:
        """Mark the interceptions that dead recorders left running as interrupted. Returns their number."""
        # After an outage of the database all heartbeats are old, so first give every recorder time for a new one. A
        # recorder that has just started cannot know of the outage, so it waits too.
        since = self._beating_since
        by_lease = since is not None and time.monotonic() - since > self._lease / 2_000_000
        recovered = 0
        async with self._database.reading() as connection:
            running = select(interceptions.c.recorder_id).where(interceptions.c.status == "running")
            left = set(await connection.scalars(running.union(select(inbox.c.recorder_id))))
            rows = (await connection.execute(select(recorders, (NOW - recorders.c.heartbeat_at).label("age")))).all()
        dead = {
            row.id: row.heartbeat_at
            for row in rows
            if row.id != self.id and ((by_lease and row.age > self._lease) or self._is_gone(row))
        }
        unknown = left - {row.id for row in rows} - {self.id}
        for recorder_id in [*dead, *unknown]:
            recovered += await interrupt(self._database, recorder_id, dead.get(recorder_id), self._stats)
            async with self._database.writing() as connection:
                await connection.execute(delete(recorders).where(recorders.c.id == recorder_id))
        if recovered:
            log.warning("%d interceptions were left running by a process that ended", recovered)
        return recovered

    async def interrupt_own(self) -> int:
        """Mark this recorder's own running interceptions as interrupted, when it shuts down. Returns their number."""
        return await interrupt(self._database, self.id, None, self._stats)
