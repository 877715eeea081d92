from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .cluster.valkey import ValkeyServer
from .recorder.postgres import PostgresServer

pytest_plugins = ["fastapi_aibridge.testing.pytest_plugin"]


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
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, of either kind."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'records.db'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.empty_database()


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
