"""Reloads that reach every worker on a database: a version is bumped, and each worker loads its settings again."""

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
    """Follows the version of the settings in one worker, and bumps it for a reload.

    `load` reads and validates the settings, and may raise; `apply` puts them in force without waiting.
    `provider_version` returns how often this worker has replaced its providers.
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
        """The version in force here; -1 while it is unknown."""
        self.error: str | None = None
        """The reason why a newer version is not in force here; None if the newest is."""

    async def start(self, seconds: float) -> None:
        """Begin to follow the version. The settings in force were read at most `seconds` ago, and contain all older
        changes; newer changes are loaded before this returns, because whoever made them did not know of this worker.
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
        """Load the settings, tell all workers to reload, apply; then wait up to `ANSWER_WITHIN` seconds for them.

        Raises what `load` raises, and `RecorderUnavailable` if the others cannot be notified; nothing has changed then,
        here or elsewhere.
        """
        async with self._lock:
            before = await self._or_unavailable(self._read())
            loaded = await self._load()
            version, rows = await self._or_unavailable(self._raise())
            if version != before + 1:
                # Another worker has bumped it meanwhile: the loaded settings may be older than its change.
                loaded = await self._tried(version)
            applied = await self._put_in_force(version, loaded)
        await self._versions.announce()
        return applied, await self._workers.outcome(version, rows, within=ANSWER_WITHIN)

    async def follow(self) -> WorkersOutcome:
        """Put a change in force that was just written to the database with its version, and announce it to all workers.
        Then wait as `reload` does.

        Raises what `load` raises, and `RecorderUnavailable` if the version cannot be read.
        """
        await self._versions.announce()
        async with self._lock:
            with self._database.needed():
                async with asyncio.timeout(ANSWER_WITHIN), self._database.reading() as connection:
                    version = await read_version(connection, SETTINGS)
                    rows = await self._workers.rows(connection)
            if version != self.version:  # otherwise the version watch was faster
                await self._put_in_force(version, await self._tried(version))
        return await self._workers.outcome(version, rows, within=ANSWER_WITHIN)

    async def workers(self) -> Sequence[Worker]:
        return await self._workers.list()

    async def _hear(self, _: int) -> None:
        async with self._lock:
            # Read again: a reload of this worker may have bumped it while this waited for the lock.
            version = await self._read()
            if version == self.version:
                return
            try:
                await self._put_in_force(version, await self._tried(version))
            except SettingsError:
                pass  # has been reported; the next version is tried again
            except PoolShutdown:
                await self._workers.leave()

    async def _may_have_changed(self, seconds: float) -> bool:
        try:
            return await self._versions.changed_within(SETTINGS, seconds)
        except Exception:  # noqa: BLE001 - drivers have errors of their own
            return True

    async def _tried(self, version: int) -> Loaded:
        """Load the settings, and report a failure to the other workers."""
        try:
            return await self._load()
        except PoolShutdown:
            raise
        except Exception as error:
            # The texts of errors other than our own may quote secrets.
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

    async def _or_unavailable(self, work: Awaitable[Result]) -> Result:
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                return await work
        except Exception as error:  # noqa: BLE001 - drivers have errors of their own
            reason = self._database.unusable(error)
            raise RecorderUnavailable(f"the workers cannot be told to reload, so none has: {reason}") from None
