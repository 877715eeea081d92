"""Erasure of one initiator's data: only the content of the records, or the records themselves.

An erasure request is kept in a table until it is done. Interceptions that still run are erased after their end, in the
heartbeat task of any recorder.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import orjson
from sqlalchemy import Row, bindparam, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from .bounds import LIMITS, Room, facts_body
from .clock import NOW
from .content import facts_without_content
from .daily import day_of
from .database import Database, insert
from .readback import load_facts
from .schema import budget_counters, erasures, facts, interceptions, objects, set_aside, usage_daily
from .text import cut_key

_BATCH = 50
"""Interceptions in one transaction; all their texts are in memory together."""
_PAUSE = 0.01
"""Seconds between two transactions, so that other writers get a turn."""
_UNSEEN = 600 * 1_000_000
"""Microseconds after which every started interception is in the tables, even if its process was killed."""
_LONGEST_PERIOD = 31 * 86400 * 1_000_000
"""Microseconds of the longest period of a budget."""
_HEAD = 4096
"""Leading characters of a row in `set_aside` that contain its ids."""
_FIRST_TEXT = re.compile(r'"([^"\\]+)')


async def ask(connection: AsyncConnection, initiator_id: str, *, everything: bool) -> None:
    """Request, in the caller's transaction, that the initiator's content until now be erased, or `everything` recorded.

    `carry_out` erases it.
    """
    values = {"initiator_id": stored_id(initiator_id), "everything": everything, "asked_at": NOW}
    await connection.execute(
        insert(connection, erasures)
        .values(values)
        .on_conflict_do_update(index_elements=["initiator_id", "everything"], set_={"asked_at": NOW})
    )


def stored_id(initiator_id: str) -> str:
    """Return the id as the tables have it."""
    return cut_key(initiator_id, LIMITS["initiator_id"])


async def carry_out(database: Database, initiator_id: str | None = None) -> int:
    """Carry out the requested erasures, of one initiator or of all. Returns the number of interceptions erased.

    May be interrupted at any point; the next call continues.
    """
    wanted = select(erasures)
    if initiator_id is not None:
        wanted = wanted.where(erasures.c.initiator_id == stored_id(initiator_id))
    async with database.reading() as connection:
        asked = (await connection.execute(wanted)).all()
    return sum([await _Erasure(database, row).run() for row in asked])


class _Erasure:
    """One requested erasure."""

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
        # The last pass starts from the beginning: another worker may have filed a row late, with a lower `seq`.
        done = 0 if is_last else self._done
        count = 0
        if is_last or await self._next(done):
            # Rows set aside are matched through the interceptions, so this must come before those are deleted.
            await self._erase_set_aside()
        while batch := await self._next(done):
            async with self._database.writing() as connection:
                await (self._delete if self._everything else self._erase_content)(connection, list(batch.values()))
            count += len(batch)
            done = max(batch)
            await asyncio.sleep(_PAUSE)
        async with self._database.writing() as connection:
            if self._everything:
                await self._erase_traces(connection)
            if is_last:
                await connection.execute(delete(erasures).where(self._me, erasures.c.asked_at == self._asked_at))
            else:
                # The next call starts at the first interception that was still running.
                done = done if first is None else min(done, first - 1)
                await connection.execute(update(erasures).where(self._me).values(done_up_to=done))
        return count

    async def _state(self) -> tuple[int | None, bool]:
        """Return the `seq` of the first running interception (None if none runs), and whether this pass is the last.

        It is once none runs and no start from before the request can be filed any more.
        """
        running = select(func.min(interceptions.c.seq)).where(self._theirs, interceptions.c.status == "running")
        async with self._database.reading() as connection:
            first: int | None = await connection.scalar(running)
            now: int = await connection.scalar(select(NOW)) or 0
        return first, first is None and self._asked_at < now - _UNSEEN

    async def _next(self, last: int) -> dict[int, str]:
        """Return `seq` and id of the next ended interceptions, at most `_BATCH`."""
        async with self._database.reading() as connection:
            rows = await connection.execute(
                select(interceptions.c.seq, interceptions.c.id)
                .where(self._theirs, interceptions.c.status != "running", interceptions.c.seq > last)
                .order_by(interceptions.c.seq)
                .limit(_BATCH)
            )
            return {row.seq: row.id for row in rows}

    async def _delete(self, connection: AsyncConnection, ids: Sequence[str]) -> None:
        await connection.execute(delete(facts).where(facts.c.interception_id.in_(ids)))
        await connection.execute(delete(interceptions).where(interceptions.c.id.in_(ids)))

    async def _erase_content(self, connection: AsyncConnection, ids: Sequence[str]) -> None:
        """Remove the content of the interceptions; tokens, costs and the names of tools stay."""
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
        """Delete the initiator's daily sums and old counters, and make their objects at providers anonymous.

        Objects keep an owner, a random one, so that nobody else can use them.
        """
        theirs = (usage_daily.c.initiator_id == self._initiator) & (usage_daily.c.day <= day_of(self._asked_at))
        await connection.execute(delete(usage_daily).where(theirs))
        # Spending in a period that may still run keeps counting, or an erasure would refund it.
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
        """Delete this initiator's rows from `set_aside`."""
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
        """Return whether the row has the initiator's id as a JSON string. An inbox row has it with escaped quotes."""
        quoted = orjson.dumps(self._initiator).decode()
        return quoted in head or orjson.dumps(quoted).decode()[1:-1] in head
