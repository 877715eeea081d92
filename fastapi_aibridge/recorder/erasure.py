"""Erasing one initiator: what was said, or all of their records.

What is asked for stands in a table until it is done: interceptions that still run are erased once they have ended, by
whichever recorder looks next.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import orjson
from sqlalchemy import Row, bindparam, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from .bounds import LIMITS, Room, facts_body
from .clock import now_of
from .content import facts_without_content
from .daily import day_of
from .database import Database
from .readback import load_facts
from .schema import budget_counters, erasures, facts, interceptions, objects, set_aside, usage_daily
from .text import cut_key

_BATCH = 50
"""Interceptions of a transaction: their texts are in memory at once."""
_PAUSE = 0.01
"""Seconds between two transactions, in which others get their turn."""
_UNSEEN = 600 * 1_000_000
"""Microseconds after which every interception that had started is in the tables, even if its process was killed."""
_LONGEST_PERIOD = 31 * 86400 * 1_000_000
"""Microseconds of a budget's period."""
_HEAD = 4096
"""Characters of a row put aside in which its ids stand."""
_FIRST_TEXT = re.compile(r'"([^"\\]+)')


async def ask(connection: AsyncConnection, initiator_id: str, *, everything: bool) -> None:
    """Note, in the caller's transaction, that what this initiator said until now is to be erased; or `everything` that
    is recorded of them. `carry_out` does it.
    """
    is_sqlite = connection.dialect.name == "sqlite"
    now = now_of(is_sqlite=is_sqlite)
    insert = (sqlite.insert if is_sqlite else postgresql.insert)(erasures)
    values = {"initiator_id": stored_id(initiator_id), "everything": everything, "asked_at": now}
    await connection.execute(
        insert.values(values).on_conflict_do_update(
            index_elements=["initiator_id", "everything"], set_={"asked_at": now}
        )
    )


def stored_id(initiator_id: str) -> str:
    """The id as the tables have it."""
    return cut_key(initiator_id, LIMITS["initiator_id"])


async def carry_out(database: Database, initiator_id: str | None = None) -> int:
    """Erase what was asked for, of one initiator or of all; returns of how many interceptions.

    It may be interrupted at any point and goes on at the next call.
    """
    wanted = select(erasures)
    if initiator_id is not None:
        wanted = wanted.where(erasures.c.initiator_id == stored_id(initiator_id))
    async with database.reading() as connection:
        asked = (await connection.execute(wanted)).all()
    return sum([await _Erasure(database, row).run() for row in asked])


class _Erasure:
    """One that was asked for."""

    def __init__(self, database: Database, asked: Row[Any]) -> None:
        self._database = database
        self._initiator: str = asked.initiator_id
        self._everything: bool = asked.everything
        self._asked_at: int = asked.asked_at
        self._done: int = asked.done_up_to
        self._theirs = (interceptions.c.initiator_id == self._initiator) & (
            interceptions.c.started_at <= self._asked_at
        )
        self._me = (erasures.c.initiator_id == self._initiator) & (erasures.c.everything == self._everything)

    async def run(self) -> int:
        first, is_last = await self._state()
        # The last pass looks at all again: another worker's row may have come late, with a lower number.
        done = 0 if is_last else self._done
        count = 0
        if is_last or await self._next(done):
            # Before the interceptions go, by which rows are known as theirs.
            await self._erase_set_aside()
        while batch := await self._next(done):
            async with self._database.writing() as connection:
                await (self._forget if self._everything else self._silence)(connection, list(batch.values()))
            count += len(batch)
            done = max(batch)
            await asyncio.sleep(_PAUSE)
        async with self._database.writing() as connection:
            if self._everything:
                await self._erase_traces(connection)
            if is_last:
                await connection.execute(delete(erasures).where(self._me, erasures.c.asked_at == self._asked_at))
            else:
                # What ran when this began is looked at again.
                done = done if first is None else min(done, first - 1)
                await connection.execute(update(erasures).where(self._me).values(done_up_to=done))
        return count

    async def _state(self) -> tuple[int | None, bool]:
        """The first interception that still runs, and whether nothing from before can come any more."""
        running = select(func.min(interceptions.c.seq)).where(self._theirs, interceptions.c.status == "running")
        async with self._database.reading() as connection:
            first: int | None = await connection.scalar(running)
            now: int = await connection.scalar(select(now_of(is_sqlite=self._database.is_sqlite))) or 0
        return first, first is None and self._asked_at < now - _UNSEEN

    async def _next(self, last: int) -> dict[int, str]:
        """Keys and ids of the next interceptions that have ended."""
        async with self._database.reading() as connection:
            rows = await connection.execute(
                select(interceptions.c.seq, interceptions.c.id)
                .where(self._theirs, interceptions.c.status != "running", interceptions.c.seq > last)
                .order_by(interceptions.c.seq)
                .limit(_BATCH)
            )
            return {row.seq: row.id for row in rows}

    async def _forget(self, connection: AsyncConnection, ids: Sequence[str]) -> None:
        await connection.execute(delete(facts).where(facts.c.interception_id.in_(ids)))
        await connection.execute(delete(interceptions).where(interceptions.c.id.in_(ids)))

    async def _silence(self, connection: AsyncConnection, ids: Sequence[str]) -> None:
        """Tokens, costs and the names of tools stay."""
        found = select(facts.c.seq, facts.c.body).where(facts.c.interception_id.in_(ids))
        changes = [
            {"own_seq": row.seq, "silent": facts_body(facts_without_content(load_facts([row.body])), Room())[0] or "{}"}
            for row in await connection.execute(found)
        ]
        if changes:
            silence = update(facts).where(facts.c.seq == bindparam("own_seq")).values(body=bindparam("silent"))
            await connection.execute(silence, changes)
        await connection.execute(update(interceptions).where(interceptions.c.id.in_(ids)).values(error=None))

    async def _erase_traces(self, connection: AsyncConnection) -> None:
        """Sums by day go. What providers keep for the initiator stays nobody else's: its owner gets a name that tells
        nothing.
        """
        theirs = (usage_daily.c.initiator_id == self._initiator) & (usage_daily.c.day <= day_of(self._asked_at))
        await connection.execute(delete(usage_daily).where(theirs))
        # What was spent in a period that may still run goes on counting, or erasure would pay it back.
        await connection.execute(
            delete(budget_counters).where(
                budget_counters.c.subject == self._initiator,
                budget_counters.c.scope != "group",
                budget_counters.c.started_at < self._asked_at - _LONGEST_PERIOD,
            )
        )
        await connection.execute(
            update(objects)
            .where(objects.c.initiator_id == self._initiator, objects.c.noted_at <= self._asked_at)
            .values(initiator_id=f"erased-{uuid4()}", interception_id=None)
        )

    async def _erase_set_aside(self) -> None:
        """Rows that no table took, as far as they are of this initiator."""
        last = 0
        head = func.substr(set_aside.c.body, 1, _HEAD).label("head")
        while True:
            async with self._database.writing() as connection:
                rows = (
                    await connection.execute(
                        select(set_aside.c.seq, set_aside.c.kind, head)
                        .where(set_aside.c.seq > last, set_aside.c.set_aside_at <= self._asked_at + _UNSEEN)
                        .order_by(set_aside.c.seq)
                        .limit(500)
                    )
                ).all()
                if not rows:
                    return
                first = {row.seq: found[1] for row in rows if (found := _FIRST_TEXT.search(row.head))}
                theirs = select(interceptions.c.id).where(interceptions.c.id.in_(first.values()), self._theirs)
                known = set(await connection.scalars(theirs))
                gone = [row.seq for row in rows if first.get(row.seq) in known or self._is_named(row.head)]
                await connection.execute(delete(set_aside).where(set_aside.c.seq.in_(gone)))
            last = rows[-1].seq

    def _is_named(self, head: str) -> bool:
        """Whether the initiator's id stands in the row by itself; within a row of the inbox its quotes are escaped."""
        quoted = orjson.dumps(self._initiator).decode()
        return quoted in head or orjson.dumps(quoted).decode()[1:-1] in head
