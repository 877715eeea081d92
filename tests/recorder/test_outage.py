from __future__ import annotations

import asyncio
import sqlite3
import time
from pathlib import Path

import pytest
from sqlalchemy.exc import DBAPIError

from fastapi_aibridge.errors import RecorderUnavailable
from fastapi_aibridge.recorder import database
from fastapi_aibridge.recorder.records import Facts, Status
from fastapi_aibridge.recorder.sql import SQLRecorder
from tests.waiting import until

from .builders import ending, interception, usage
from .postgres import PostgresServer

pytestmark = pytest.mark.anyio


async def test_a_database_that_goes_and_returns_costs_no_record(own_postgres: PostgresServer) -> None:
    """When the server is killed under load and restarted, every interception that started exists once, with its end."""
    url = await own_postgres.empty_database_async()
    completed: list[str] = []
    refused: list[str] = []
    stop = asyncio.Event()
    async with SQLRecorder(url, start_timeout=0.3) as recorder:

        async def run() -> None:
            while not stop.is_set():
                begun = interception()
                try:
                    await recorder.start(begun)
                except RecorderUnavailable:
                    refused.append(begun.id)
                    await asyncio.sleep(0.02)
                else:
                    await asyncio.sleep(0.005)
                    await recorder.end(begun.id, ending(), Facts(token_usages=[usage()]))
                    completed.append(begun.id)

        async with asyncio.timeout(120), asyncio.TaskGroup() as tasks:
            for _ in range(30):
                tasks.create_task(run())
            await until(lambda: len(completed) >= 300)
            await asyncio.to_thread(own_postgres.stop)
            await until(lambda: len(refused) >= 100)
            assert not recorder.available
            await asyncio.to_thread(own_postgres.start)
            before = len(completed)
            await until(lambda: len(completed) >= before + 300)
            stop.set()
    async with SQLRecorder(url) as recorder:
        for interception_id in completed:
            record = await recorder.get(interception_id)
            assert record is not None
            assert record.ending is not None
            assert record.ending.status is Status.COMPLETED
            assert record.facts.token_usages == [usage()]
        for interception_id in refused:
            record = await recorder.get(interception_id)
            assert record is None or record.ending is not None


async def test_reading_from_a_database_that_hangs_ends(
    own_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the server hangs, readers get an error in time; once it responds again, they get records."""
    monkeypatch.setattr(database, "_STATEMENT_TIMEOUT", 400)
    monkeypatch.setattr(database, "_CONNECT_TIMEOUT", 1.0)
    url = await own_postgres.empty_database_async()
    async with SQLRecorder(url) as recorder:
        begun = interception()
        await recorder.start(begun)
        await recorder.end(begun.id, ending(), Facts())
        assert await recorder.get(begun.id)
        own_postgres.freeze()
        try:
            for _ in range(3):
                started = time.monotonic()
                with pytest.raises((RecorderUnavailable, OSError, DBAPIError)):
                    await recorder.get(begun.id)
                assert time.monotonic() - started < 5
        finally:
            own_postgres.thaw()
        async with asyncio.timeout(60):
            while True:
                try:
                    assert await recorder.get(begun.id)
                    break
                except (RecorderUnavailable, OSError, DBAPIError):
                    await asyncio.sleep(0.1)


async def test_a_database_that_is_away_at_the_start_is_waited_for(own_postgres: PostgresServer) -> None:
    """The recorder waits for the database at its start, and raises an error if that takes too long."""
    url = await own_postgres.empty_database_async()
    await asyncio.to_thread(own_postgres.stop)
    with pytest.raises(RecorderUnavailable):
        async with SQLRecorder(url, open_timeout=0.5):
            pass
    starting = asyncio.create_task(asyncio.to_thread(own_postgres.start))
    async with SQLRecorder(url, open_timeout=20) as recorder:
        await recorder.start(interception())
    await starting


async def test_an_outage_is_noticed_without_traffic(tmp_path: Path) -> None:
    """A recorder that nobody uses notices by its heartbeat that its database takes no writes, and then that it does."""
    path = tmp_path / "records.db"
    async with SQLRecorder(f"sqlite+aiosqlite:///{path}", lease=0.4) as recorder:
        assert recorder.available
        locking = sqlite3.connect(path, isolation_level=None)
        locking.execute("BEGIN IMMEDIATE")
        await until(lambda: not recorder.available)
        locking.execute("ROLLBACK")
        locking.close()
        await until(lambda: recorder.available)


async def test_a_record_is_written_while_heartbeats_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit after a failed heartbeat shows that the database is there."""
    async with SQLRecorder(f"sqlite+aiosqlite:///{tmp_path / 'records.db'}", lease=0.4) as recorder:
        with monkeypatch.context() as patch:
            patch.setattr(recorder.database, "writing", lambda: 1 / 0)
            await until(lambda: not recorder.available)
            await recorder.start(interception())
            assert recorder.available


async def test_a_locked_sqlite_file_is_waited_for(tmp_path: Path) -> None:
    """A start waits while another program holds SQLite's write lock, and is refused if that takes too long."""
    path = tmp_path / "records.db"
    async with SQLRecorder(f"sqlite+aiosqlite:///{path}", start_timeout=1) as recorder:
        locking = sqlite3.connect(path, isolation_level=None)
        locking.execute("BEGIN IMMEDIATE")
        with pytest.raises(RecorderUnavailable):
            await recorder.start(interception())
        locking.execute("ROLLBACK")
        locking.close()
        await until(lambda: recorder.available)
        await recorder.start(begun := interception())
        assert await recorder.get(begun.id)
