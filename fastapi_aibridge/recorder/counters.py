"""Budget counters in SQL, apart from reservations: open and read them, release them after a crash, prune old ones."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, cast

from sqlalchemy import ColumnElement, Row, Select, and_, delete, exists, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ..budget import period_start
from .bounds import OBJECT_ID_LIMIT, group_key, key_of
from .cursor import to_microseconds
from .database import Database, insert, unavailable
from .reader import read_tokens
from .reservations import MAX_AMOUNT, Counted, CounterKey, CounterListener, counted_scope
from .schema import budget_counters, interceptions, reservations
from .text import cut_key, dump

_KEY = ("scope", "subject", "period", "started_at")
_BATCH = 200
_LONGEST_PERIOD = timedelta(days=31)
_KEPT = timedelta(days=35)
"""The time for which counters can still be read after the end of their period."""


_reading = partial(unavailable, "budgets cannot be read")


class SQLCounters:
    """The budget counters of a database; implements `Counters`."""

    def __init__(self, database: Database, flush: Callable[[], Awaitable[None]]) -> None:
        """`flush` writes the ends and settlements that wait in this process."""
        self.changed: CounterListener | None = None
        self._database = database
        self._flush = flush

    def tell(self, counters: Mapping[int, Counted]) -> None:
        if self.changed is not None:
            self.changed(counters)

    async def open(self, keys: Sequence[CounterKey]) -> Sequence[int]:
        with _reading():
            async with self._database.reading() as connection:
                found = await _rows(connection, keys)
            if missing := [key for key in keys if key not in found]:
                await self._begin(missing)
                async with self._database.reading() as connection:
                    found = await _rows(connection, keys)
        return [found[key].id for key in keys]

    async def _begin(self, keys: Sequence[CounterKey]) -> None:
        await self._flush()
        async with self._database.writing() as connection:
            for key in keys:
                # Another process may open the counter at the same time.
                await connection.execute(
                    insert(connection, budget_counters)
                    .values(
                        **dict(zip(_KEY, _values(key), strict=True)),
                        spent=await _recorded(connection, key),
                        reserved=0,
                        told=0,
                    )
                    .on_conflict_do_nothing()
                )

    async def counted(self, keys: Sequence[CounterKey]) -> Mapping[CounterKey, Counted]:
        await self._flush()
        with _reading():
            async with self._database.reading() as connection:
                rows = await _rows(connection, keys)
        return {key: Counted(row.spent, row.reserved) for key, row in rows.items()}

    async def catch_up(self, budgets: Iterable[tuple[str, str, str]]) -> None:
        await self._flush()
        with _reading():
            async with self._database.writing() as connection:
                for budget in budgets:
                    await _catch_up(connection, *budget, datetime.now(UTC))

    async def tokens_of(self, provider: str, response_id: str) -> int:
        await self._flush()
        key = key_of("provider", provider), cut_key(response_id, OBJECT_ID_LIMIT)
        with _reading():
            async with self._database.reading() as connection:
                return await read_tokens(connection, *key)

    async def claim_warning(self, counter: int, reached: int) -> bool:
        with _reading():
            async with self._database.writing() as connection:
                first = await connection.execute(
                    update(budget_counters)
                    .where(budget_counters.c.id == counter, budget_counters.c.told < reached)
                    .values(told=reached)
                )
        return bool(first.rowcount)

    async def prune(self, now: datetime) -> None:
        """Delete counters of periods that ended long ago, and settled rows of dead recorders a day after the end."""
        before = to_microseconds(now - _LONGEST_PERIOD - _KEPT)
        late = to_microseconds(now - timedelta(days=1))
        goes_on = exists().where(
            interceptions.c.id == reservations.c.interception_id,
            or_(interceptions.c.status == "running", interceptions.c.ended_at >= late),
        )
        async with self._database.writing() as connection:
            await connection.execute(delete(reservations).where(reservations.c.recorder_id == "", ~goes_on))
            await connection.execute(
                delete(budget_counters).where(budget_counters.c.started_at < before, budget_counters.c.reserved == 0)
            )


def _values(key: CounterKey) -> tuple[str, str, str, int]:
    return key.scope, key.id, key.period, to_microseconds(key.start)


async def _rows(connection: AsyncConnection, keys: Sequence[CounterKey]) -> dict[CounterKey, Row[Any]]:
    by_values = {_values(key): key for key in keys}
    found: dict[CounterKey, Row[Any]] = {}
    columns = [budget_counters.c[name] for name in _KEY]
    for place in range(0, len(keys), _BATCH):
        wanted = [
            and_(*(column == value for column, value in zip(columns, _values(key), strict=True)))
            for key in keys[place : place + _BATCH]
        ]
        statement = select(
            *columns, budget_counters.c.id, budget_counters.c.spent, budget_counters.c.reserved
        ).where(or_(*wanted))  # fmt: skip
        for row in await connection.execute(statement):
            found[by_values[tuple(row)[: len(_KEY)]]] = cast("Row[Any]", row)
    return found


async def release(connection: AsyncConnection, recorder_id: str) -> None:
    """Settle all reservations of a dead recorder, each with the cost in the interception's record.

    The settled rows are kept until `prune`: if the recorder is alive after all, its late ends correct them.
    """
    while True:
        cost = (
            select(func.coalesce(interceptions.c.cost, 0))
            .where(interceptions.c.id == reservations.c.interception_id)
            .scalar_subquery()
        )
        held = (
            await connection.execute(
                select(
                    reservations.c.interception_id,
                    reservations.c.counter_id,
                    reservations.c.spent,
                    reservations.c.reserved,
                    func.coalesce(cost, 0).label("cost"),
                )
                .where(reservations.c.recorder_id == recorder_id)
                .order_by(reservations.c.counter_id)
                .limit(_BATCH)
                .with_for_update(of=reservations)
            )
        ).all()
        if not held:
            return
        for row in held:
            await connection.execute(
                update(budget_counters)
                .where(budget_counters.c.id == row.counter_id)
                .values(
                    spent=budget_counters.c.spent + row.cost - row.spent,
                    reserved=budget_counters.c.reserved - row.reserved,
                )
            )
            await connection.execute(
                update(reservations)
                .where(
                    reservations.c.interception_id == row.interception_id, reservations.c.counter_id == row.counter_id
                )
                .values(recorder_id="", spent=row.cost, reserved=0)
            )


async def _recorded(connection: AsyncConnection, key: CounterKey) -> int:
    """Return the spending in the period so far according to the records, for a counter opened during the period."""
    subject = key_of("initiator_id", key.id) if key.scope == "initiator" else key.id
    total = (await connection.execute(_costs(connection, key.scope, subject, key.start))).scalar()
    return min(int(total or 0), MAX_AMOUNT)


def _costs(
    connection: AsyncConnection, scope: str, subject: ColumnElement[str] | str, start: datetime
) -> Select[tuple[Any]]:
    """Select the total cost of records since `start`. `subject` is a group's name or the value of `initiator_id`.

    Requests with the client's own key (`byok`) do not count.
    """
    wanted = [interceptions.c.started_at >= to_microseconds(start), interceptions.c.credential_kind != "byok"]
    if scope == "initiator":
        wanted.append(interceptions.c.initiator_id == subject)
    elif scope == "group":
        # SQLite's LIKE would ignore case.
        place = func.instr if connection.dialect.name == "sqlite" else func.strpos
        wanted.append(place(interceptions.c.groups, dump(group_key(str(subject)))) > 0)
    return select(func.sum(interceptions.c.cost)).where(*wanted)


def limited_by(scope: str, id_: str, period: str) -> list[ColumnElement[bool]]:
    """Return the conditions for the counters that a budget may limit."""
    counter = budget_counters.c
    is_for_each = scope in ("member", "default")
    return [
        counter.scope == counted_scope(scope),
        counter.period == period,
        *(() if is_for_each else (counter.subject == id_,)),
    ]


async def _catch_up(connection: AsyncConnection, scope: str, id_: str, period: str, now: datetime) -> None:
    start = period_start(period, now)
    kept = budget_counters.c
    of = counted_scope(scope)
    wanted = [*limited_by(scope, id_, period), kept.started_at == to_microseconds(start)]
    # Lock the counters before the sums are read, so that no settlement comes between.
    await connection.execute(select(kept.id).where(*wanted).order_by(kept.id).with_for_update())
    subject = kept.subject if of == "initiator" else id_
    ended = _costs(connection, of, subject, start).correlate(budget_counters).scalar_subquery()
    running = select(func.sum(reservations.c.spent)).where(
        reservations.c.counter_id == kept.id, reservations.c.recorder_id != ""
    )
    spent = func.coalesce(ended, 0) + func.coalesce(running.correlate(budget_counters).scalar_subquery(), 0)
    await connection.execute(update(budget_counters).where(*wanted, spent > kept.spent).values(spent=spent))
