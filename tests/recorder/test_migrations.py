from __future__ import annotations

import asyncio
import importlib
import pkgutil
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, inspect, text

from fastapi_aibridge import cluster, money
from fastapi_aibridge.recorder.database import Database
from fastapi_aibridge.recorder.migrate import HEAD, VERSION_TABLE, alembic_config, is_ours, migrate
from fastapi_aibridge.recorder.schema import metadata
from fastapi_aibridge.recorder.sql import SQLRecorder
from fastapi_aibridge.recorder.store import SQLStore

from .builders import interception

pytestmark = pytest.mark.anyio


async def run(url: str, look: Any) -> Any:
    database = Database(url)
    database.open(create=True)
    try:
        async with database.writing() as connection:
            return await connection.run_sync(look)
    finally:
        await database.close()


async def test_the_migrated_tables_are_those_that_the_code_expects(empty_url: str) -> None:
    """Alembic finds no difference between the migrated database and the metadata."""
    for package in (cluster, money):  # modules that define tables
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    async with SQLStore(empty_url, create=True) as store:
        assert await store.migrate()
        assert not await store.migrate()

    def differences(connection: Connection) -> Any:
        from alembic.autogenerate import compare_metadata
        from alembic.migration import MigrationContext

        options = {"include_name": is_ours, "version_table": VERSION_TABLE}
        return compare_metadata(MigrationContext.configure(connection, opts=options), metadata)

    assert await run(empty_url, differences) == []


async def test_the_newest_revision_is_the_one_that_starts_look_for() -> None:
    """The revision that a start looks for, without loading alembic, is the head of the scripts."""
    from alembic.script import ScriptDirectory

    assert ScriptDirectory.from_config(alembic_config()).get_current_head() == HEAD


async def test_a_migration_can_be_taken_back(empty_url: str) -> None:
    """A downgrade to the base removes all tables of the package and none of the app's."""

    def down(connection: Connection) -> list[str]:
        from alembic import command

        connection.execute(text("CREATE TABLE of_the_app (id INTEGER)"))
        command.upgrade(alembic_config(connection), "head")
        command.downgrade(alembic_config(connection), "base")
        return inspect(connection).get_table_names()

    assert set(await run(empty_url, down)) == {"of_the_app", VERSION_TABLE}


async def test_several_processes_may_migrate_at_once(empty_url: str) -> None:
    """One process migrates, and the others wait for it."""
    program = f"""
import asyncio
from fastapi_aibridge.recorder.store import SQLStore
async def main():
    async with SQLStore({empty_url!r}, create=True) as store:
        await store.migrate()
asyncio.run(main())
"""
    processes = [await asyncio.create_subprocess_exec(sys.executable, "-c", program) for _ in range(3)]
    assert [await process.wait() for process in processes] == [0, 0, 0]
    async with SQLRecorder(empty_url, migrate=False) as recorder:
        await recorder.start(interception())


async def test_concurrent_recorders_of_one_process_may_migrate_at_once(empty_url: str) -> None:
    """Two apps that start at once on an empty database both start."""
    databases = [Database(empty_url) for _ in range(3)]
    for database in databases:
        database.open(create=True)
    assert sorted(await asyncio.gather(*map(migrate, databases))) == [False, False, True]
    for database in databases:
        await database.close()


async def test_apps_that_start_at_one_moment_on_databases_of_their_own_all_come_up(tmp_path: Path) -> None:
    """Concurrent migrations, in one event loop or in several threads, do not share alembic's module state."""
    databases = [Database(f"sqlite+aiosqlite:///{tmp_path / f'{number}.db'}") for number in range(6)]
    for database in databases:
        database.open(create=True)
    assert await asyncio.gather(*map(migrate, databases)) == [True] * 6
    for database in databases:
        await database.close()

    async def start(number: int) -> None:
        async with SQLRecorder(f"sqlite+aiosqlite:///{tmp_path / f'thread-{number}.db'}") as recorder:
            await recorder.start(interception())

    await asyncio.gather(*(asyncio.to_thread(asyncio.run, start(number)) for number in range(4)))


def test_a_recorder_may_be_opened_in_one_event_loop_after_the_other(empty_url: str) -> None:
    """Nothing of the first event loop remains in the recorder."""
    recorder = SQLRecorder(empty_url)

    async def run() -> None:
        async with recorder:
            await recorder.start(begun := interception())
            assert await recorder.get(begun.id) is not None

    for _ in range(2):
        asyncio.run(run())
