"""Interceptions in a database, to be read, added up and pruned."""

from __future__ import annotations

import builtins
from datetime import datetime
from types import TracebackType
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
    """The SQLite or PostgreSQL database that `url` names, while it is entered: `async with SQLStore(url) as store`.

    It records nothing, so that a command can look at a database that others record into. A SQLite file that does not
    exist is an error (`ConfigurationError`) unless it may be created.
    """

    def __init__(self, url: str, *, create: bool = False) -> None:
        self._database = Database(url)
        self._create = create

    async def __aenter__(self) -> Self:
        self._database.open(create=self._create)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._database.close()

    @property
    def database(self) -> Database:
        """For what else is kept there."""
        return self._database

    async def list(self, query: InterceptionQuery) -> Page:
        """At most 1,000 of them. Raises `InvalidCursor`."""
        async with self._database.reading() as connection:
            return await read_page(connection, query)

    async def get(self, interception_id: str) -> InterceptionRecord | None:
        async with self._database.reading() as connection:
            return await read_one(connection, interception_id)

    async def usage(self, query: UsageQuery) -> builtins.list[UsageRow]:
        async with self._database.reading() as connection:
            return await read_usage(connection, query)

    async def prune(self, started_before: datetime) -> int:
        """Delete what started before that moment and has ended; returns how many interceptions that were."""
        return await prune(self._database, started_before)

    async def migrate(self) -> bool:
        """Bring the tables to this release's schema; returns whether there was anything to do."""
        return await migrate(self._database)
