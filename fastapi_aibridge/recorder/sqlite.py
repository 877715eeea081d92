"""The writer's sink for SQLite: one thread with one connection, which writes a whole batch at a time."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable
from functools import cache
from itertools import chain
from queue import SimpleQueue
from typing import Any, cast

from sqlalchemy import URL, create_engine

from .batch import KINDS, Batch
from .columns import END_COLUMNS
from .reservations import Outcome
from .schema import TARGETS, end_assignments, inbox, interceptions, usage_days
from .sqlite_reservations import account, pieces

_Job = tuple[Batch, asyncio.Future[Outcome | None]]


class SQLiteSink:
    """A sink that commits batches with starts or reservations with the given `synchronous`, so that by default a start
    survives a crash of the machine. Other batches use NORMAL; the next start's commit makes them as durable.
    """

    def __init__(self, url: URL, *, synchronous: str = "FULL") -> None:
        self._url = url.set(drivername="sqlite")
        self._synchronous = synchronous
        self._now_synchronous = ""
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name="aibridge-recorder", daemon=True)
        self._thread.start()

    async def write(self, batch: Batch) -> Outcome | None:
        done: asyncio.Future[Outcome | None] = self._loop.create_future()
        self._jobs.put((batch, done))
        return await done

    async def close(self) -> None:
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join, 10)

    def _work(self) -> None:
        engine = create_engine(self._url, pool_size=1, max_overflow=0)
        connection: sqlite3.Connection | None = None
        pooled: Any = None
        while (job := self._jobs.get()) is not None:
            batch, done = job
            try:
                if connection is None:
                    pooled = engine.raw_connection()
                    connection = cast("sqlite3.Connection", pooled.driver_connection)
                    self._prepare(connection)
                outcome = self._write(connection, batch)
            except Exception as error:  # noqa: BLE001 - raised in `write`
                if connection is not None and not _rolled_back(connection):
                    pooled.invalidate()
                    connection = None
                self._answer(done, error)
            else:
                self._answer(done, outcome)
        if connection is not None:
            pooled.close()
        engine.dispose()

    def _answer(self, done: asyncio.Future[Outcome | None], answer: Exception | Outcome | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(_settle, done, answer)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.isolation_level = None
        enter_wal(connection.execute)
        connection.execute("PRAGMA cache_size = -32000")
        # Each checkpoint waits for the disk; a log with a few megabytes more means fewer of them.
        connection.execute("PRAGMA wal_autocheckpoint = 4000")
        self._now_synchronous = ""

    def _write(self, connection: sqlite3.Connection, batch: Batch) -> Outcome | None:
        synchronous = self._synchronous if batch.inbox or batch.reservations else "NORMAL"
        if synchronous != self._now_synchronous:
            connection.execute(f"PRAGMA synchronous = {synchronous}")
            self._now_synchronous = synchronous
        connection.execute("BEGIN IMMEDIATE")
        outcome = account(connection, batch) if batch.has_money else None
        for kind in KINDS:
            rows = getattr(batch, kind)
            if outcome is not None and outcome.refused and kind == "inbox":
                rows = [row for row in rows if row[1] not in outcome.refused]
            for some in pieces(rows):
                connection.execute(_statement(kind, len(some)), list(chain.from_iterable(some)))
        if batch.filed_up_to:
            connection.execute(
                f"DELETE FROM {inbox} WHERE recorder_id = ? AND number <= ?",  # noqa: S608
                (batch.recorder_id, batch.filed_up_to),
            )
        if batch.stale_days:
            days = [(day,) for day in batch.stale_days]
            connection.executemany(f"DELETE FROM {usage_days} WHERE day = ?", days)  # noqa: S608
        connection.execute("COMMIT")
        return outcome


def enter_wal(execute: Callable[[str], object]) -> None:
    """Switch to the write-ahead log, and wait up to five seconds for locks.

    If another connection switches at the same time, one long wait would last until that connection closes, but a retry
    finds the switch done. So this makes many short attempts.
    """
    execute("PRAGMA busy_timeout = 100")
    for attempts_left in reversed(range(50)):
        try:
            execute("PRAGMA journal_mode = WAL")
            break
        except Exception as error:
            if not attempts_left or "locked" not in str(error):
                raise
    execute("PRAGMA busy_timeout = 5000")


@cache
def _statement(kind: str, rows: int) -> str:
    if kind == "ends":
        names = ", ".join(END_COLUMNS)
        return (
            f"WITH ended ({names}) AS ({_values(len(END_COLUMNS), rows)}) "  # noqa: S608
            f"UPDATE {interceptions} SET {end_assignments(interceptions)} "
            f"FROM ended WHERE {interceptions}.id = ended.id"
        )
    table, columns, conflict = TARGETS[kind]
    return f"INSERT INTO {table} ({', '.join(columns)}) {_values(len(columns), rows)} ON CONFLICT {conflict}"


def _values(columns: int, rows: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return f"VALUES {', '.join([row] * rows)}"


def _rolled_back(connection: sqlite3.Connection) -> bool:
    try:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    except sqlite3.Error:
        return False
    return True


def _settle(done: asyncio.Future[Outcome | None], answer: Exception | Outcome | None) -> None:
    if done.done():
        return
    if isinstance(answer, Exception):
        done.set_exception(answer)
    else:
        done.set_result(answer)
