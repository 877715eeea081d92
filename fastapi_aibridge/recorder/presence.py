"""Who records into this database and lives; what those who died left running becomes interrupted."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from sqlalchemy import bindparam, delete, insert, literal_column, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from .database import Database
from .process import ProcessIdentity
from .records import Status
from .rows import NO_TOKENS, add_tokens, inbox_start, load_facts
from .schema import TOKEN_COLUMNS, facts, inbox, interceptions, recorders

log = logging.getLogger(__name__)

_BATCH = 500


class Presence:
    """One recorder among the others on its database.

    A recorder is dead when its process is seen to be gone, or when its heartbeat is older than `lease` seconds.
    """

    def __init__(self, database: Database, recorder_id: str, *, lease: float) -> None:
        self._database = database
        self._recorder_id = recorder_id
        self._lease = int(lease * 1_000_000)
        self._process = ProcessIdentity.current()
        self._beats = 0
        if database.is_sqlite:
            now = "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)"
        else:
            now = "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)"
        self._now: Any = literal_column(now)

    async def beat(self) -> None:
        """Say that this recorder lives. Another one that thought otherwise is corrected."""
        try:
            async with self._database.writing() as connection:
                known = await connection.execute(
                    update(recorders).where(recorders.c.id == self._recorder_id).values(heartbeat_at=self._now)
                )
                if not known.rowcount:
                    await connection.execute(
                        insert(recorders).values(
                            id=self._recorder_id,
                            host=self._process.host,
                            pid=self._process.pid,
                            process_started=self._process.started,
                            heartbeat_at=self._now,
                        )
                    )
        except BaseException:
            self._beats = 0
            raise
        self._beats += 1

    async def leave(self) -> None:
        async with self._database.writing() as connection:
            await connection.execute(delete(recorders).where(recorders.c.id == self._recorder_id))

    async def recover(self, *, at_start: bool = False) -> int:
        """Mark what dead recorders left running as interrupted; returns how many interceptions that were."""
        # After the database was away all heartbeats are old, so wait until everybody has had time for a new one.
        by_lease = at_start or self._beats > 1
        recovered = 0
        async with self._database.reading() as connection:
            running = select(interceptions.c.recorder_id).where(interceptions.c.status == "running")
            left = set(await connection.scalars(running.union(select(inbox.c.recorder_id))))
            rows = (
                await connection.execute(select(recorders, (self._now - recorders.c.heartbeat_at).label("age")))
            ).all()
        dead = {
            row.id: row.heartbeat_at
            for row in rows
            if row.id != self._recorder_id
            and (
                (by_lease and row.age > self._lease)
                or ProcessIdentity(row.host, row.pid, row.process_started).is_gone(self._process)
            )
        }
        unknown = left - {row.id for row in rows} - {self._recorder_id}
        for recorder_id in [*dead, *(unknown if by_lease else ())]:
            recovered += await self._interrupt(recorder_id, dead.get(recorder_id))
            async with self._database.writing() as connection:
                await connection.execute(delete(recorders).where(recorders.c.id == recorder_id))
        if recovered:
            log.warning("%d interceptions were left running by a process that ended", recovered)
        return recovered

    async def interrupt_own(self) -> int:
        """For the end of a recorder: whatever it still has running will never end otherwise."""
        return await self._interrupt(self._recorder_id, None)

    async def _file_inbox(self, recorder_id: str) -> None:
        """What the dead recorder had no time to put in its place."""
        while True:
            async with self._database.writing() as connection:
                mine = inbox.c.recorder_id == recorder_id
                rows = (
                    await connection.execute(
                        select(inbox.c.number, inbox.c.body).where(mine).order_by(inbox.c.number).limit(_BATCH)
                    )
                ).all()
                if not rows:
                    return
                starts = [inbox_start(row.body) for row in rows]
                known = set(
                    await connection.scalars(
                        select(interceptions.c.id).where(interceptions.c.id.in_([start["id"] for start in starts]))
                    )
                )
                new = [start | {"status": "running"} for start in starts if start["id"] not in known]
                if new:
                    await connection.execute(insert(interceptions), new)
                await connection.execute(delete(inbox).where(mine, inbox.c.number <= rows[-1].number))

    async def _interrupt(self, recorder_id: str, last_seen: int | None) -> int:
        await self._file_inbox(recorder_id)
        count = 0
        while True:
            async with self._database.writing() as connection:
                rows = (
                    await connection.execute(
                        select(interceptions.c.seq, interceptions.c.id, interceptions.c.started_at)
                        .where(interceptions.c.recorder_id == recorder_id, interceptions.c.status == "running")
                        .limit(_BATCH)
                    )
                ).all()
                if not rows:
                    return count
                ended = last_seen or (await connection.execute(select(self._now))).scalar_one()
                tokens = await _known_tokens(connection, [row.id for row in rows])
                await connection.execute(
                    _INTERRUPT,
                    [
                        {
                            "own_seq": row.seq,
                            "ended": max(ended, row.started_at),
                            **dict(zip(TOKEN_COLUMNS, tokens.get(row.id, NO_TOKENS), strict=True)),
                        }
                        for row in rows
                    ],
                )
            count += len(rows)


_INTERRUPT = (
    update(interceptions)
    .where(interceptions.c.seq == bindparam("own_seq"), interceptions.c.status == "running")
    .values(
        status=str(Status.INTERRUPTED),
        ended_at=bindparam("ended"),
        **{name: bindparam(name) for name in TOKEN_COLUMNS},
    )
)


async def _known_tokens(connection: AsyncConnection, ids: Sequence[str]) -> dict[str, tuple[int, int, int, int]]:
    """What was observed of interceptions that nobody added up."""
    tokens: dict[str, tuple[int, int, int, int]] = {}
    found = await connection.execute(
        select(facts.c.interception_id, facts.c.body).where(facts.c.interception_id.in_(ids))
    )
    for interception_id, body in found:
        usages = load_facts([body]).token_usages
        tokens[interception_id] = add_tokens(tokens.get(interception_id, NO_TOKENS), usages)
    return tokens
