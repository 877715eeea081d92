"""Reading, aggregating and pruning of interceptions in a database, without recording."""

from __future__ import annotations

import builtins
from datetime import datetime
from typing import Self

from .aggregate import read_usage
from .database import Database
from .migrate import migrate
from .reader import read_one, read_page
from .recorder import InterceptionQuery, Page
from .records import InterceptionRecord
from .retention import prune
from .usage import UsageQuery, UsageRow


class SQLStore:
    """A store in the SQLite or PostgreSQL database that `url` names: `async with SQLStore(url) as store`.

    It records nothing, so a command can use it on a database that others record into. A missing SQLite file raises
    `ConfigurationError`, unless `create` is true.
    """

    def __init__(self, url: str, *, create: bool = False) -> None:
        self._database = Database(url)
        self._create = create

    async def __aenter__(self) -> Self:
        self._database.open(create=self._create)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._database.close()

    @property
    def database(self) -> Database:
        """The database, which also holds the state that all workers share. Open while the store is."""
        return self._database

    async def list(self, query: InterceptionQuery) -> Page:
        """Return a page of at most 1,000. Raises `InvalidCursor`."""
        async with self._database.reading() as connection:
            return await read_page(connection, query)

    async def get(self, interception_id: str) -> InterceptionRecord | None:
        async with self._database.reading() as connection:
            return await read_one(connection, interception_id)

    async def usage(self, query: UsageQuery) -> builtins.list[UsageRow]:
        async with self._database.reading() as connection:
            return await read_usage(connection, query)

    async def prune(self, started_before: datetime) -> int:
        """Delete ended interceptions that started before that moment. Returns their number."""
        return await prune(self._database, started_before)

    async def migrate(self) -> bool:
        """Migrate the tables to this release's schema. Returns whether there was anything to do."""
        return await migrate(self._database)
