from __future__ import annotations

import asyncio
import gc
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from fastapi.dependencies import models as dependencies
from hypothesis import HealthCheck, settings

from .cluster.valkey import ValkeyServer
from .recorder.postgres import PostgresServer, in_memory, migrated

pytest_plugins = ["fastapi_aibridge.testing.pytest_plugin"]

# How long an example takes depends on what else the machine has to do.
settings.register_profile("unhurried", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

# Commits of the tests' databases do not wait for a disk to which other tests write; nor do those of child processes.
if (place := in_memory()) is not None:
    os.environ["TMPDIR"] = tempfile.tempdir = str(place)


# Files of few tests that take long, because they wait for what must take its time.
LONGEST_FILES = [
    "e2e/cluster/test_outages.py", "e2e/records/test_crash.py", "e2e/load/test_load.py", "e2e/cluster/test_limits.py",
    "e2e/chaos/test_soak.py", "e2e/records/test_outage.py", "e2e/budgets/test_crash.py", "e2e/bounds/test_hostile.py",
    "recorder/test_crash.py", "e2e/budgets/test_side_by_side.py", "recorder/test_outage.py",
]  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first, so that no process has it left when the others are done."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST_FILES)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Thousands of tests are made, and stay: no garbage collection needs to look through them again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.fixture(autouse=True)
def forgotten_apps() -> Iterator[None]:
    """FastAPI keeps the dependencies of thousands of apps, and with them the apps: collections would take a second."""
    yield
    for one in vars(dependencies).values():
        if hasattr(one, "cache_clear"):
            one.cache_clear()


@pytest.fixture(scope="session", autouse=True)
def empty_environment() -> Iterator[None]:
    """Tests, and the processes that they start, find no settings but their own."""
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.upper().startswith(("AIBRIDGE_", "OPENAI_", "ANTHROPIC_", "OTEL_")):
                patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The server; a machine on which it does not start fails the tests."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A server that the test may stop."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, of either kind."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'records.db'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.empty_database()


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of SQLite that has this release's tables."""
    path = tmp_path_factory.mktemp("migrated") / "records.db"
    asyncio.run(migrated(f"sqlite+aiosqlite:///{path}"))
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of either kind that has this release's tables, and nothing in them. It takes less time than a
    migration for each test.
    """
    if request.param == "sqlite":
        path = tmp_path / "records.db"
        shutil.copy(request.getfixturevalue("migrated_file"), path)
        return f"sqlite+aiosqlite:///{path}"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.migrated_database()


@pytest.fixture(scope="session")
def shared_valkey() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@pytest.fixture
def valkey(shared_valkey: ValkeyServer) -> ValkeyServer:
    """An empty Valkey server; a machine on which it does not start fails the tests."""
    shared_valkey.flush()
    return shared_valkey


@pytest.fixture
def own_valkey() -> Iterator[ValkeyServer]:
    """A server that the test may stop."""
    with ValkeyServer() as server:
        yield server
