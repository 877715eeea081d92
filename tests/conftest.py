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
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from .cluster.valkey import ValkeyServer
from .recorder.postgres import PostgresServer, in_memory, migrated

pytest_plugins = ["fastapi_aibridge.testing.pytest_plugin"]

# The time of one example depends on the machine's other load.
settings.register_profile("unhurried", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

# The databases of the tests, and of their child processes, commit in memory: no commit waits for a busy disk.
if (place := in_memory()) is not None:
    os.environ["TMPDIR"] = tempfile.tempdir = str(place)


# Files with few but slow tests, most of whose time is spent waiting.
LONGEST_FILES = [
    "e2e/cluster/test_outages.py", "e2e/records/test_crash.py", "e2e/load/test_load.py", "e2e/cluster/test_limits.py",
    "e2e/chaos/test_soak.py", "e2e/records/test_outage.py", "e2e/budgets/test_crash.py", "e2e/bounds/test_hostile.py",
    "recorder/test_crash.py", "e2e/budgets/test_side_by_side.py", "recorder/test_outage.py",
]  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slowest files first, so that no worker process is still busy with one when the others have finished."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST_FILES)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect the tests with the garbage collector off: it would scan thousands of lasting objects again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.fixture(autouse=True)
def forgotten_apps() -> Iterator[None]:
    """Clear FastAPI's caches after each test: they keep all apps alive, which slows garbage collections down."""
    yield
    for one in vars(dependencies).values():
        if hasattr(one, "cache_clear"):
            one.cache_clear()


@pytest.fixture(scope="session", autouse=True)
def empty_environment() -> Iterator[None]:
    """Remove settings from the environment, so that tests and the processes they start see only their own."""
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.upper().startswith(("AIBRIDGE_", "OPENAI_", "ANTHROPIC_", "OTEL_")):
                patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """The spans of the test, which runs with a tracer provider of its own."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return exporter


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The shared PostgreSQL server; tests fail on a machine where it does not start."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server that the test may stop."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, once SQLite and once PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'records.db'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.empty_database()


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the tables of this release."""
    path = tmp_path_factory.mktemp("migrated") / "records.db"
    asyncio.run(migrated(f"sqlite+aiosqlite:///{path}"))
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database with the tables of this release and no rows, once SQLite and once PostgreSQL: a copy,
    because a migration for each test would take longer.
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
    """The shared Valkey server, emptied; tests fail on a machine where it does not start."""
    shared_valkey.flush()
    return shared_valkey


@pytest.fixture
def own_valkey() -> Iterator[ValkeyServer]:
    """A Valkey server that the test may stop."""
    with ValkeyServer() as server:
        yield server
