"""Notifies the parts of one worker of changes that other workers made to data that all of them hold."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Self

from sqlalchemy import select

from ..cancellation import is_cancelled
from ..recorder.clock import NOW
from ..recorder.database import Database
from .redis import SharedRedis
from .versions import VersionReader, data_versions

log = logging.getLogger(__name__)

Changed = Callable[[int], Awaitable[None]]
"""Called with the new version. If it raises, it is called again later."""

INTERVAL = 1.0
"""Seconds between two reads of the versions."""
_CHANNEL = "versions"
"""The Redis channel that announces changes."""
_GRACE = 1.0
"""Seconds by which the clocks of the database and of the process may differ while an app starts."""

_LONGEST_DELAY = 30.0
"""The longest delay, in seconds, before a follower that keeps failing is called again."""


class _Follower:
    """A callback for one version. Its calls run in a task of their own, so a slow one delays no other."""

    def __init__(self, name: str, changed: Changed, known: int, delay: float) -> None:
        self.name = name
        self.known = known
        """The last version with which `changed` was called without an error."""
        self._changed = changed
        self._delay = delay
        self._wanted = known
        self._task: asyncio.Task[None] | None = None
        self._failures = 0
        self._not_before = 0.0

    def tell(self, version: int) -> None:
        self._wanted = version
        if self.known == version or time.monotonic() < self._not_before:
            return
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._catch_up(), name=f"aibridge-follows-{self.name}")

    async def _catch_up(self) -> None:
        while self.known != (version := self._wanted):
            try:
                await self._changed(version)
            except Exception as error:  # noqa: BLE001 - whatever it was, a later look tries again
                if not self._failures:
                    log.warning("a change of %s could not be followed yet: %s", self.name, type(error).__name__)
                self._not_before = time.monotonic() + min(self._delay * 2**self._failures, _LONGEST_DELAY)
                self._failures += self._failures < 10
                return
            self.known = version
            self._failures, self._not_before = 0, 0.0

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


class VersionWatch:
    """Reads the versions each second (`interval`), and at once when PostgreSQL or `redis` announces a change, and
    notifies followers.

    Use it as `async with VersionWatch(database) as versions`, which raises `RecorderUnavailable` if the versions cannot
    be read. If the database becomes unavailable later, followers keep their data, and are notified of changes when it
    is back.
    """

    def __init__(
        self,
        database: Database,
        redis: SharedRedis | None = None,
        *,
        interval: float | None = None,
        timeout: float = 5.0,
    ) -> None:
        self.database = database
        self._redis = redis
        self._interval = INTERVAL if interval is None else interval
        self._timeout = timeout
        self._followers: list[_Follower] = []
        self._seen: Mapping[str, int] = {}
        self._woken = asyncio.Event()
        self._reader = VersionReader(database, self.wake)
        self._loop = asyncio.get_running_loop()
        self._away_since: float | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        with self.database.needed():
            # Listen first, then read, so that a change in between is not missed.
            await self._look()
        if self._redis is not None:
            self._redis.subscribe(_CHANNEL, lambda _: self.wake(), self.wake)
        self._task = asyncio.create_task(self._follow(), name="aibridge-versions")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for follower in self._followers:
            await follower.aclose()
        self._followers.clear()

    def follow(self, name: str, changed: Changed, *, known: int | None = None) -> None:
        """Call `changed` with each new version of `name`; several in quick succession may become one call.

        `known` is the version already in force, by default that of the last read. So call `version(name)` first, then
        read the data, then follow.
        """
        follower = _Follower(name, changed, self.version(name) if known is None else known, self._interval)
        self._followers.append(follower)
        follower.tell(self.version(name))

    def version(self, name: str) -> int:
        """The version at the last read; 0 if it has never changed."""
        return self._seen.get(name, 0)

    def wake(self) -> None:
        """Read the versions now."""
        self._woken.set()

    async def announce(self) -> None:
        """Have all workers read the versions now, if Redis can tell them; others read them within their interval."""
        self.wake()
        if self._redis is not None:
            await self._redis.publish(_CHANNEL)

    @property
    def away_for(self) -> float:
        """Seconds for which the versions have been unreadable; 0 while they can be read."""
        return 0.0 if self._away_since is None else self._loop.time() - self._away_since

    async def changed_within(self, name: str, seconds: float) -> bool:
        """Whether `name` has changed within the last seconds, or may have, as clocks differ."""
        since = NOW - int((seconds + _GRACE) * 1_000_000)
        changed = select(data_versions.c.changed_at > since).where(data_versions.c.name == name)
        async with self.database.reading() as connection:
            return bool(await connection.scalar(changed))

    async def _follow(self) -> None:
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._interval):
                        await self._woken.wait()
                self._woken.clear()
                try:
                    await self._look()
                except Exception as error:  # noqa: BLE001 - drivers have errors of their own
                    self._note_failure(error)
        finally:
            # Here, so that it also happens if the loop ends without leaving the context: a driver's thread would keep
            # the process alive.
            await self._reader.aclose()

    def _note_failure(self, error: Exception) -> None:
        if self._away_since is None:
            self._away_since = self._loop.time()
            log.warning("changes made elsewhere cannot be seen (%s); trying again", type(error).__name__)

    async def _look(self) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                self._seen = await self._reader.read()
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            # The driver's own cancellation, from a closing connection: nobody has cancelled this task.
            raise ConnectionError("the database's driver gave the read up") from None
        if self._away_since is not None:
            log.warning("changes made elsewhere are seen again")
            self._away_since = None
        for follower in self._followers:
            follower.tell(self.version(follower.name))
