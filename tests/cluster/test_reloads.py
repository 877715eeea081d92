"""A reload of one worker reloads all workers that share its database."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, update

from fastapi_aibridge.cluster import reloads, version_watch
from fastapi_aibridge.cluster.versions import bump, data_versions
from fastapi_aibridge.recorder.database import Database
from fastapi_aibridge.recorder.process import ProcessIdentity
from fastapi_aibridge.recorder.schema import recorders
from tests.recorder.postgres import PostgresServer
from tests.waiting import until

from .valkey import ValkeyServer
from .workers import AppWorker, reloaded_at_once

pytestmark = pytest.mark.anyio

ALL = {"applied": 3, "failed": [], "silent": 0}


async def execute(url: str, statement: Any) -> None:
    database = Database(url)
    database.open(create=False)
    async with database.writing() as connection:
        await connection.execute(statement)
    await database.close()


async def change_settings(url: str) -> None:
    """Announce changed settings as another worker does, without waiting for the workers."""
    database = Database(url)
    database.open(create=False)
    async with database.writing() as connection:
        await bump(connection, "settings")
    await database.close()


async def test_a_reload_reaches_all(url: str) -> None:
    """When a reload has responded, every worker has the new settings, and `/admin/workers` says so."""
    async with AppWorker(url) as one, AppWorker(url) as two, AppWorker(url) as three:
        before = [item["config_version"] for item in await two.items()]
        for worker in (one, two, three):
            worker.key = "sk-new"
        assert await one.reached() == ALL
        assert [worker.in_force for worker in (one, two, three)] == ["sk-new"] * 3
        after = await two.items()
        assert before == [0, 0, 0]
        assert [(item["config_version"], item["provider_version"], item["error"]) for item in after] == [
            (1, 2, None)
        ] * 3
        assert {item["id"] for item in after} == {one.id, two.id, three.id}
        assert {item["pid"] for item in after} == {os.getpid()}
        for item in after:
            assert "/" not in item["host"]
            assert datetime.fromisoformat(item["started_at"]) <= datetime.fromisoformat(item["last_seen"])
            assert abs((datetime.now(UTC) - datetime.fromisoformat(item["last_seen"])).total_seconds()) < 30


async def test_reloads_of_several_workers_at_once(url: str) -> None:
    """Concurrent reloads get a version each, and all workers end with the newest settings."""
    async with AppWorker(url) as one, AppWorker(url) as two, AppWorker(url) as three:
        workers = (one, two, three)
        for number in range(3):
            for worker in workers:
                worker.key = f"sk-{number}"
            assert await reloaded_at_once(*workers, *workers) == [ALL] * 6
            assert [worker.in_force for worker in workers] == [f"sk-{number}"] * 3
        await until(lambda: all(worker.aibridge._host.runtime.config_version == 18 for worker in workers))


async def test_settings_that_one_worker_cannot_validate(url: str) -> None:
    """A worker with invalid settings keeps the old ones and reports that everywhere until a valid reload."""
    async with AppWorker(url) as one, AppWorker(url) as two:
        two.refused = True
        one.key = "sk-new"
        reached = await one.reached()
        assert reached == {"applied": 1, "failed": [{"worker": two.id, "error": reached["failed"][0]["error"]}],
                           "silent": 0}  # fmt: skip
        assert "AIBRIDGE_PROVIDERS__OPENAI__API_KEY" in reached["failed"][0]["error"]
        assert (one.in_force, two.in_force) == ("sk-new", "sk-old")
        items = {item["id"]: item for item in await one.items()}
        assert (items[one.id]["config_version"], items[one.id]["error"]) == (1, None)
        assert items[two.id]["config_version"] == 0
        assert items[two.id]["error"] == reached["failed"][0]["error"]
        health = await two.get("/readyz?verbose")
        assert (health.status_code, health.json()["components"]["settings"][:7]) == (200, "refused")
        assert "aibridge_config_refused 1.0" in (await two.get("/admin/metrics")).text

        two.refused = False
        two.key = "sk-new"
        assert await one.reached() == {"applied": 2, "failed": [], "silent": 0}
        assert two.in_force == "sk-new"
        assert (await two.get("/readyz?verbose")).json()["components"]["settings"] == "ok"
        metrics = (await two.get("/admin/metrics")).text
        assert "aibridge_config_refused 0.0" in metrics
        assert "aibridge_config_version 2.0" in metrics


async def test_a_refusal_that_no_database_takes(url: str) -> None:
    """The text of a refusal is cut and made storable, so that the worker's heartbeat can still be written."""
    async with AppWorker(url) as one, AppWorker(url) as two:
        two.refused = True
        two.refusal = "\0\ud800 a line\n" + "x" * 10_000_000
        (failed,) = (await one.reached())["failed"]
        assert " a line" in failed["error"]
        assert len(failed["error"]) < 2000
        await two.aibridge._host.runtime.recorder.presence.beat()  # type: ignore[attr-defined]


async def test_a_refusal_without_a_text(url: str) -> None:
    """A refusal without a text is reported as one."""
    async with AppWorker(url) as one, AppWorker(url) as two:
        two.refused, two.refusal = True, ""
        assert (await one.reached())["failed"] == [{"worker": two.id, "error": "SettingsError"}]
        assert [item["config_version"] for item in await one.items() if item["id"] == two.id] == [0]


async def test_settings_that_the_asked_worker_cannot_validate(url: str) -> None:
    """If the asked worker's settings are invalid, the response is 422 and the other workers do nothing."""
    async with AppWorker(url) as one, AppWorker(url) as two:
        one.refused = True
        two.key = "sk-new"
        assert (await one.reload()).status_code == 422
        await asyncio.sleep(1.2)
        assert (two.in_force, two.reads) == ("sk-old", 1)
        assert [item["config_version"] for item in await one.items()] == [0, 0]


async def test_a_worker_that_does_not_answer(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reload waits for other workers for a limited time, and counts those without a response as silent."""
    monkeypatch.setattr(reloads, "ANSWER_WITHIN", 0.5)
    async with AppWorker(url) as one:
        row = {"id": "far", "host": "far away", "pid": 1, "process_started": "1", "started_at": 1}
        now = int(time.time() * 1_000_000)
        await execute(url, insert(recorders).values(**row, heartbeat_at=now, config_seen=0, config_version=0))
        begun = time.monotonic()
        assert await one.reached() == {"applied": 1, "failed": [], "silent": 1}
        assert 0.3 < time.monotonic() - begun < 15
        # A script that records without an app does not count as a worker.
        await execute(url, update(recorders).where(recorders.c.id == "far").values(started_at=None))
        assert await one.reached() == {"applied": 1, "failed": [], "silent": 0}


async def test_a_worker_whose_process_is_gone(url: str) -> None:
    """A worker whose process has ended is not counted, even if its heartbeat is recent."""
    process = await asyncio.create_subprocess_exec("sleep", "60")
    here = ProcessIdentity.current()
    async with AppWorker(url) as one:
        row = {"id": "killed", "host": here.host, "pid": process.pid, "process_started": "1", "started_at": 1}
        process.kill()
        await process.wait()
        await execute(url, insert(recorders).values(**row, heartbeat_at=int(time.time() * 1_000_000)))
        assert await one.reached() == {"applied": 1, "failed": [], "silent": 0}
        assert [item["id"] for item in await one.items()] == [one.id]


async def test_a_worker_that_starts_during_a_reload(url: str) -> None:
    """A worker that starts during a reload reads its settings again before it serves, and is counted afterwards."""
    async with AppWorker(url) as one:
        late = AppWorker(url)
        read = late._settings

        def overtaken() -> Any:
            settings = read()
            late.key = "sk-new"
            return settings

        late.aibridge._host._parts.settings = overtaken
        await change_settings(url)
        async with late:
            assert late.in_force == "sk-new"
            assert await one.reached() == {"applied": 2, "failed": [], "silent": 0}


async def test_settings_are_read_once_where_nothing_has_changed(url: str) -> None:
    """A start does not read its settings twice because of an old reload."""
    async with AppWorker(url) as one:
        await one.reached()
    await execute(url, update(data_versions).values(changed_at=1000))
    async with AppWorker(url) as two:
        assert [item["config_version"] for item in await two.items()] == [1]
        await asyncio.sleep(1.2)
        assert two.reads == 1


async def test_a_worker_that_drains_is_not_waited_for(url: str) -> None:
    """A draining worker is not waited for, because it takes no new requests."""
    async with AppWorker(url) as one, AppWorker(url) as two:
        two.aibridge.drain()
        assert await one.reached() == {"applied": 1, "failed": [], "silent": 0}
        assert [item["id"] for item in await one.items()] == [one.id]
        assert (await two.reload()).status_code == 503


async def test_many_workers_of_one_machine_on_sqlite(tmp_path: Path) -> None:
    """Many workers on one SQLite file do not lock each other out."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'records.db'}"
    async with AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(AppWorker(url)) for _ in range(12)]
        for worker in workers[:4]:
            assert await worker.reached() == {"applied": 12, "failed": [], "silent": 0}


async def test_the_database_is_away(own_postgres: PostgresServer) -> None:
    """Without the database a reload is refused and changes nothing; afterwards it works without a restart."""
    url = await own_postgres.empty_database_async()
    async with AppWorker(url) as one, AppWorker(url) as two:
        one.key = two.key = "sk-new"
        await asyncio.to_thread(own_postgres.stop)
        answer = await one.reload()
        assert (answer.status_code, "AIBRIDGE_RECORDER__URL" in answer.json()["detail"]) == (503, True)
        assert (await one.get("/admin/workers")).status_code == 503
        assert (one.in_force, two.in_force) == ("sk-old", "sk-old")
        await until(lambda: two.aibridge._host.runtime.changes_unseen_for)
        health = (await two.get("/readyz?verbose")).json()["components"]
        assert health["changes"] == "cannot be seen"
        assert "aibridge_changes_unseen_seconds 0.0\n" not in (await two.get("/admin/metrics")).text
        await asyncio.to_thread(own_postgres.start)
        assert await one.reached() == {"applied": 2, "failed": [], "silent": 0}
        assert (one.in_force, two.in_force) == ("sk-new", "sk-new")
        assert (await two.get("/readyz?verbose")).json()["components"]["changes"] == "ok"


async def test_redis_wakes_the_others(tmp_path: Path, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message by Redis wakes the workers long before their next check, if the database cannot notify them."""
    monkeypatch.setattr(version_watch, "INTERVAL", 60.0)
    url = f"sqlite+aiosqlite:///{tmp_path / 'records.db'}"
    async with AppWorker(url, redis_url=valkey.url) as one, AppWorker(url, redis_url=valkey.url) as two:
        one.key = two.key = "sk-new"
        begun = time.monotonic()
        assert await one.reached() == {"applied": 2, "failed": [], "silent": 0}
        assert time.monotonic() - begun < 30
        assert two.in_force == "sk-new"


async def test_a_worker_without_a_database_is_alone() -> None:
    """Without a database a reload applies to its own worker, which is the only one in the list."""
    async with AppWorker(None) as one:
        (item,) = await one.items()
        assert (item["pid"], item["config_version"], item["provider_version"]) == (os.getpid(), 0, 1)
        one.key = "sk-new"
        assert await one.reached() == {"applied": 1, "failed": [], "silent": 0}
        assert one.in_force == "sk-new"
        (item,) = await one.items()
        assert (item["config_version"], item["provider_version"], item["error"]) == (1, 2, None)
        assert "changes" not in (await one.get("/readyz?verbose")).json()["components"]
