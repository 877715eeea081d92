from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from fastapi_aibridge.recorder.database import Database
from fastapi_aibridge.recorder.migrate import migrate


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    """A database with this release's tables."""
    database = Database(url)
    database.open(create=True)
    await migrate(database)
    yield database
    await database.close()
