"""Recovery of a dead recorder's data: file its inbox, and mark its running interceptions as interrupted."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from sqlalchemy import bindparam, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from .batch import Row
from .clock import NOW
from .columns import SET_ASIDE_COLUMNS, SUM_COLUMNS
from .committer import WriterStats, set_aside_row
from .counters import release
from .database import Database, insert
from .readback import load_facts
from .records import Status
from .rows import NO_TOKENS, Tokens, add_tokens, cost_of, inbox_start
from .schema import facts, inbox, interceptions, set_aside
from .verdict import Verdict, judge

log = logging.getLogger(__name__)

_BATCH = 500


async def interrupt(database: Database, recorder_id: str, last_seen: int | None, stats: WriterStats) -> int:
    """End the recorder's running interceptions as interrupted, at `last_seen` in microseconds (None: now), and release
    its reservations. Returns the number of interceptions. Rows that had to be set aside are counted in `stats`.
    """
    await _file_inbox(database, recorder_id, stats)
    count = 0
    while True:
        async with database.writing() as connection:
            rows = (
                await connection.execute(
                    select(interceptions.c.seq, interceptions.c.id, interceptions.c.started_at)
                    .where(interceptions.c.recorder_id == recorder_id, interceptions.c.status == "running")
                    .limit(_BATCH)
                )
            ).all()
            if not rows:
                await release(connection, recorder_id)
                return count
            ended = last_seen or await connection.scalar(select(NOW))
            known = await _known_usage(connection, [row.id for row in rows])
            await connection.execute(
                _INTERRUPT,
                [
                    {
                        "own_seq": row.seq,
                        "ended": max(ended, row.started_at),
                        **dict(zip(SUM_COLUMNS, known.get(row.id, (*NO_TOKENS, None)), strict=True)),
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
        # The usage of the message that was running is unknown.
        cost_estimated=True,
        **{name: bindparam(name) for name in SUM_COLUMNS},
    )
)


async def _known_usage(connection: AsyncConnection, ids: Sequence[str]) -> dict[str, tuple[int | None, ...]]:
    """Add up the observed usage of interceptions without an end: the values of `SUM_COLUMNS` by id."""
    tokens: dict[str, Tokens] = {}
    costs: dict[str, list[int | None]] = {}
    found = await connection.execute(
        select(facts.c.interception_id, facts.c.body).where(facts.c.interception_id.in_(ids))
    )
    for interception_id, body in found:
        usages = load_facts([body]).token_usages
        tokens[interception_id] = add_tokens(tokens.get(interception_id, NO_TOKENS), usages)
        costs.setdefault(interception_id, []).extend(usage.cost for usage in usages)
    return {each: (*counted, cost_of(costs[each])) for each, counted in tokens.items()}


async def _file_inbox(database: Database, recorder_id: str, stats: WriterStats) -> None:
    """File the starts in the recorder's inbox. A start that cannot be filed is set aside, so that it does not keep the
    app from starting.
    """
    mine = inbox.c.recorder_id == recorder_id
    while True:
        async with database.reading() as connection:
            waiting = select(inbox.c.number, inbox.c.body).where(mine).order_by(inbox.c.number).limit(_BATCH)
            rows = [tuple(row) for row in (await connection.execute(waiting)).all()]
        if not rows:
            return
        try:
            await _file(database, recorder_id, rows)
        except Exception as error:
            if judge(error) is Verdict.SHORT:
                raise
            for row in rows:
                if not await _is_filed(database, recorder_id, row):
                    stats.refused += 1
                    stats.set_aside += 1


async def _is_filed(database: Database, recorder_id: str, row: Row) -> bool:
    """File one start, or set it aside if it is refused. Returns whether it was filed."""
    try:
        await _file(database, recorder_id, [row])
    except Exception as error:
        if judge(error) is Verdict.SHORT:
            raise
        reason = type(error).__name__
        number, body = row
        aside = dict(zip(SET_ASIDE_COLUMNS, set_aside_row(recorder_id, "inbox", reason, body), strict=True))
        # If the database is unavailable, this fails as well, and nothing is lost.
        async with database.writing() as connection:
            await connection.execute(insert(connection, set_aside).values(aside))
            await _leave_inbox(connection, recorder_id, [number])
        log.error("a start in the inbox could not be filed (%s); it is in aibridge_set_aside", reason)  # noqa: TRY400
        return False
    return True


async def _file(database: Database, recorder_id: str, rows: Sequence[Row]) -> None:
    """Move starts from the inbox to their table, all of them or none."""
    starts: list[dict[str, Any]] = [inbox_start(body) for _, body in rows]
    async with database.writing() as connection:
        # Another process may recover the same recorder at the same time.
        place = insert(connection, interceptions).on_conflict_do_nothing(index_elements=["id"])
        await connection.execute(place, [start | {"status": "running"} for start in starts])
        await _leave_inbox(connection, recorder_id, [number for number, _ in rows])


async def _leave_inbox(connection: AsyncConnection, recorder_id: str, numbers: Sequence[int]) -> None:
    await connection.execute(delete(inbox).where(inbox.c.recorder_id == recorder_id, inbox.c.number.in_(numbers)))
