"""Reloads that reach every worker on a database: a version is raised, and each worker loads its own settings again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from ..errors import PoolShutdown, RecorderUnavailable, SettingsError
from ..recorder.database import Database
from .version_watch import VersionWatch
from .versions import SETTINGS, bump, read_version
from .worker import Worker, WorkersOutcome
from .workers import Rows, Workers

log = logging.getLogger(__name__)

Loaded = TypeVar("Loaded")
Applied = TypeVar("Applied")
Result = TypeVar("Result")

ANSWER_WITHIN = 5.0
"""Seconds that a reload waits for the other workers."""


class SharedReloads(Generic[Loaded, Applied]):
    """Follows the version of the settings in one worker, and raises it.

    `load` reads the settings and validates them, and may raise; `apply` puts them in force, and does not wait.
    `provider_version` counts the replacements of this worker.
    """

    def __init__(
        self,
        database: Database,
        versions: VersionWatch,
        workers: Workers,
        load: Callable[[], Awaitable[Loaded]],
        apply: Callable[[Loaded], Applied],
        provider_version: Callable[[], int],
    ) -> None:
        self._database = database
        self._versions = versions
        self._workers = workers
        self._load = load
        self._apply = apply
        self._provider_version = provider_version
        self._lock = asyncio.Lock()
        self.version = -1
        """In force here; -1 where that is not known yet."""
        self.error: str | None = None
        """Why a newer version is not in force here."""

    async def start(self, seconds: float) -> None:
        """Begin to follow. The settings in force were read at most `seconds` ago: they have all changes that are older;
        newer ones are loaded before this returns, as whoever made them did not know of this worker.
        """
        if await self._may_have_changed(seconds):
            try:
                await self._hear(self.version)
            except Exception as error:  # noqa: BLE001 - drivers have errors of their own
                log.warning("the newest settings cannot be read yet: %s", type(error).__name__)
        else:
            self.version = self._versions.version(SETTINGS)
            await self._workers.report(self.version, self._provider_version())
        self._versions.follow(SETTINGS, self._hear, known=self.version)

    async def reload(self) -> tuple[Applied, WorkersOutcome]:
        """Load, tell all workers to do so too, apply; then wait until they have, `ANSWER_WITHIN` seconds at most.

        Raises what `load` raises, and `RecorderUnavailable` where the others cannot be told: nothing has changed then,
        here or elsewhere.
        """
        async with self._lock:
            before = await self._told(self._read())
            loaded = await self._load()
            version, rows = await self._told(self._raise())
            if version != before + 1:
                # Somebody else has raised it since: what was loaded may be older than what that was about.
                loaded = await self._tried(version)
            applied = await self._put_in_force(version, loaded)
        await self._versions.announce()
        return applied, await self._workers.outcome(version, rows, within=ANSWER_WITHIN)

    async def follow(self) -> WorkersOutcome:
        """Put a change in force that has just been written into the database, with its version: all workers hear of it.
        Then wait as `reload` does.

        Raises what `load` raises, and `RecorderUnavailable` where the version cannot be read.
        """
        await self._versions.announce()
        async with self._lock:
            try:
                async with asyncio.timeout(ANSWER_WITHIN), self._database.reading() as connection:
                    version = await read_version(connection, SETTINGS)
                    rows = await self._workers.rows(connection)
            except Exception as error:  # noqa: BLE001 - drivers have errors of their own
                raise RecorderUnavailable(self._database.unusable(error)) from None
            if version != self.version:  # else this worker has heard of it as the others do
                await self._put_in_force(version, await self._tried(version))
        return await self._workers.outcome(version, rows, within=ANSWER_WITHIN)

    async def workers(self) -> Sequence[Worker]:
        return await self._workers.list()

    async def _hear(self, _: int) -> None:
        async with self._lock:
            # Read again: while this waited, a reload from here may have raised it.
            version = await self._read()
            if version == self.version:
                return
            try:
                await self._put_in_force(version, await self._tried(version))
            except SettingsError:
                pass  # has been told; the next version is tried again
            except PoolShutdown:
                await self._workers.leave()

    async def _may_have_changed(self, seconds: float) -> bool:
        try:
            return await self._versions.changed_within(SETTINGS, seconds)
        except Exception:  # noqa: BLE001 - drivers have errors of their own
            return True

    async def _tried(self, version: int) -> Loaded:
        """What is loaded now. If that fails, the others hear of it."""
        try:
            return await self._load()
        except PoolShutdown:
            raise
        except Exception as error:
            # The texts of other errors than our own may quote secrets.
            text = str(error) if isinstance(error, SettingsError) else ""
            self.error = text or type(error).__name__
            await self._workers.report(version, self._provider_version(), error=self.error)
            raise

    async def _put_in_force(self, version: int, loaded: Loaded) -> Applied:
        applied = self._apply(loaded)
        self.version = version
        self.error = None
        await self._workers.report(version, self._provider_version())
        return applied

    async def _read(self) -> int:
        async with self._database.reading() as connection:
            return await read_version(connection, SETTINGS)

    async def _raise(self) -> tuple[int, Rows]:
        async with self._database.writing() as connection:
            return await bump(connection, SETTINGS), await self._workers.rows(connection)

    async def _told(self, work: Awaitable[Result]) -> Result:
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                return await work
        except Exception as error:  # noqa: BLE001 - drivers have errors of their own
            reason = self._database.unusable(error)
            raise RecorderUnavailable(f"the workers cannot be told to reload, so none has: {reason}") from None
