from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from pathlib import Path

import pytest
from sqlalchemy import text

from fastapi_aibridge.cluster.version_watch import VersionWatch
from fastapi_aibridge.cluster.versions import bump
from fastapi_aibridge.errors import RecorderUnavailable
from fastapi_aibridge.recorder.database import Database
from fastapi_aibridge.recorder.migrate import migrate
from tests.recorder.postgres import PostgresServer
from tests.waiting import until

pytestmark = pytest.mark.anyio


async def change(database: Database, name: str = "settings") -> int:
    async with database.writing() as connection:
        return await bump(connection, name)


class Told:
    """A follower that notes its versions; it fails while `failing` is set, and waits until `held` is set."""

    def __init__(self) -> None:
        self.versions: list[int] = []
        self.failing = False
        self.held = asyncio.Event()
        self.held.set()

    async def __call__(self, version: int) -> None:
        await self.held.wait()
        if self.failing:
            raise ValueError("not now")
        self.versions.append(version)


async def test_followers_hear_of_what_others_change(database: Database, url: str) -> None:
    """A follower is called for its own name only, with the newest version."""
    other = Database(url)
    other.open(create=False)
    keys, settings = Told(), Told()
    async with VersionWatch(database, interval=0.05) as versions:
        versions.follow("client_keys", keys)
        versions.follow("settings", settings)
        assert await change(other, "client_keys") == 1
        await until(lambda: keys.versions == [1])
        assert await change(other, "client_keys") == 2
        await until(lambda: keys.versions == [1, 2])
        assert versions.version("client_keys") == 2
        assert settings.versions == []
    await other.close()


async def test_a_change_that_is_rolled_back_is_none(database: Database) -> None:
    """A version is part of the transaction that changes it, and is rolled back with it."""
    told = Told()
    async with VersionWatch(database, interval=0.05) as versions:
        versions.follow("settings", told)
        with contextlib.suppress(ZeroDivisionError):
            async with database.writing() as connection:
                await bump(connection, "settings")
                raise ZeroDivisionError
        assert await change(database) == 1
        await until(lambda: told.versions == [1])


async def test_changes_at_one_moment_get_versions_of_their_own(database: Database) -> None:
    """Concurrent changes get different versions."""
    assert sorted(await asyncio.gather(*(change(database) for _ in range(10)))) == list(range(1, 11))


async def test_what_was_in_force_already_is_not_told(database: Database) -> None:
    """A follower is called for later versions only, or at once if it knows an older one."""
    await change(database)
    current, behind = Told(), Told()
    async with VersionWatch(database, interval=0.05) as versions:
        versions.follow("settings", current)
        versions.follow("settings", behind, known=0)
        await until(lambda: behind.versions == [1])
        await change(database)
        await until(lambda: current.versions == [2])
    assert current.versions == [2]


async def test_a_follower_that_fails_is_called_again(database: Database) -> None:
    """A follower that fails is called again until it succeeds."""
    told = Told()
    told.failing = True
    async with VersionWatch(database, interval=0.05) as versions:
        versions.follow("settings", told)
        await change(database)
        await asyncio.sleep(0.2)
        told.failing = False
        await until(lambda: told.versions == [1])


async def test_a_follower_that_takes_long_delays_no_other(database: Database) -> None:
    """A slow follower delays no other, and is then called once with the newest version."""
    slow, quick = Told(), Told()
    slow.held.clear()
    async with VersionWatch(database, interval=0.05) as versions:
        versions.follow("settings", slow)
        versions.follow("settings", quick)
        for version in (1, 2, 3):
            await change(database)
            await until(lambda wanted=version: quick.versions[-1:] == [wanted])  # type: ignore[misc]
        slow.held.set()
        await until(lambda: slow.versions[-1:] == [3])
    assert len(slow.versions) == 2


async def test_postgresql_tells_at_once(postgres: PostgresServer) -> None:
    """PostgreSQL notifies followers long before the next check."""
    database = Database(await postgres.empty_database_async())
    database.open(create=True)
    await migrate(database)
    told = Told()
    async with VersionWatch(database, interval=60) as versions:
        versions.follow("settings", told)
        begun = time.monotonic()
        await change(database)
        await until(lambda: told.versions == [1])
        assert time.monotonic() - begun < 30
    await database.close()


async def test_a_lost_message_is_caught_up_by_looking(postgres: PostgresServer) -> None:
    """A change without a notification is found by the next check."""
    database = Database(await postgres.empty_database_async())
    database.open(create=True)
    await migrate(database)
    told = Told()
    async with VersionWatch(database) as versions:
        versions.follow("settings", told)
        begun = time.monotonic()
        async with database.writing() as connection:
            row = "INSERT INTO aibridge_data_versions (name, version, changed_at) VALUES ('settings', 1, 0)"
            await connection.execute(text(row))
        await until(lambda: told.versions == [1])
        assert time.monotonic() - begun < 5
    await database.close()


async def test_a_database_that_was_away_needs_no_restart(own_postgres: PostgresServer) -> None:
    """After an outage followers learn of the missed changes, and later ones are notified at once again."""
    database = Database(await own_postgres.empty_database_async())
    database.open(create=True)
    await migrate(database)
    told = Told()
    async with VersionWatch(database, interval=0.05) as versions:
        versions.follow("settings", told)
        await asyncio.to_thread(own_postgres.stop)
        await until(lambda: versions.away_for > 0)
        await asyncio.to_thread(own_postgres.start)
        await change(database)
        await until(lambda: told.versions == [1])
        assert versions.away_for == 0
    await database.close()


async def test_a_writer_that_holds_sqlite_locks_nobody_out(tmp_path: Path) -> None:
    """A writer that holds SQLite's lock does not delay the checks, which need no lock."""
    database = Database(f"sqlite:///{tmp_path / 'records.db'}")
    database.open(create=True)
    await migrate(database)
    await change(database)
    told = Told()
    async with VersionWatch(database, interval=0.02, timeout=1) as versions:
        versions.follow("settings", told)
        with sqlite3.connect(tmp_path / "records.db", isolation_level=None) as writer:
            writer.execute("BEGIN IMMEDIATE")
            await asyncio.sleep(0.2)
            assert versions.away_for == 0
            writer.execute("UPDATE aibridge_data_versions SET version = 7")
            writer.execute("COMMIT")
        writer.close()
        await until(lambda: told.versions == [7])
    await database.close()


async def test_a_recent_change_is_told_from_an_old_one(database: Database) -> None:
    """A change is recent or old by the database's clock."""
    async with VersionWatch(database) as versions:
        assert not await versions.changed_within("settings", 60)
        await change(database)
        assert await versions.changed_within("settings", 60)
        async with database.writing() as connection:
            await connection.execute(text("UPDATE aibridge_data_versions SET changed_at = 1000"))
        assert not await versions.changed_within("settings", 60)


async def test_versions_that_cannot_be_read_at_the_start(tmp_path: Path) -> None:
    """If versions cannot be read at the start, the error names the setting."""
    database = Database(f"sqlite:///{tmp_path / 'empty.db'}")
    database.open(create=True)
    with pytest.raises(RecorderUnavailable, match="AIBRIDGE_RECORDER__URL"):
        async with VersionWatch(database):
            pass
    await database.close()
