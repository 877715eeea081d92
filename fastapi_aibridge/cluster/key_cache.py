"""A worker's cache of the client keys in the database, kept up to date with the changes of all workers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from typing import Protocol

from ..errors import GatewayError
from ..pool.slot import Key
from ..principal import Principal
from ..recorder.database import Database, unavailable
from .client_key import ClientKey
from .client_keys import changes_since, digest_of, find, note_uses
from .key_text import is_key
from .versions import CLIENT_KEYS

logger = logging.getLogger(__name__)

MOST_KEYS = 65_536
"""Keys in the cache, about 60 MB; the oldest are dropped, and looked up again when needed."""
MOST_UNKNOWN = 65_536
"""Digests remembered as belonging to no usable key."""
LOOK_UPS = 4
"""Concurrent look-ups, so that invalid keys sent by strangers cannot keep the recorder's database busy."""
USE_INTERVAL = 60.0
"""Seconds between two records of a key's last use."""
_NOTE_AFTER = 1.0
"""Seconds over which uses are collected before they are written."""
_PAGE = 1000
_TIMEOUT = 5.0
_EARLIEST_ALARM = 0.25

CutOff = Callable[[Key, Callable[[], Exception]], None]
"""Ends all requests that run under a principal's key, with an error from the given factory."""


class Versions(Protocol):
    def version(self, name: str) -> int: ...

    def follow(self, name: str, changed: Callable[[int], Awaitable[None]], *, known: int | None = None) -> None: ...


@dataclass(slots=True)
class _Known:
    """A key that may be used."""

    principal: Principal
    expires_at: float
    """Seconds since 1970; infinite for a key that does not expire."""
    noted_at: float = 0.0
    """Seconds since 1970 at which its use was last noted."""


class KeyCache:
    """Maps the digests of keys seen by this worker to principals.

    A key that any worker revokes, or that expires, is dropped, and `cut_off` ends the requests that run under it.
    `clock` is the time of day in seconds since 1970. Call `aclose` at the end.
    """

    def __init__(
        self, database: Database, versions: Versions, cut_off: CutOff, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._cut_off = cut_off
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        # Mutable state.
        self._known: dict[bytes, _Known] = {}
        self._unknown: dict[bytes, None] = {}
        self._expiring: dict[bytes, _Known] = {}  # also keys dropped from `_known`: requests may still run
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = inf
        self._uses: dict[str, int] = {}
        self._noting: asyncio.TimerHandle | None = None
        self._note_task: asyncio.Task[None] | None = None
        self._looking = asyncio.Semaphore(LOOK_UPS)
        self._catching_up = asyncio.Lock()
        self._version = versions.version(CLIENT_KEYS)
        versions.follow(CLIENT_KEYS, self.catch_up, known=self._version)

    def known(self, digest: bytes) -> Principal | None:
        """Return the cached principal of a key; None if the key is not cached or has expired."""
        key = self._known.get(digest)
        if key is None:
            return None
        now = self._clock()
        if now >= key.expires_at:
            self._expire()
            return None
        if now - key.noted_at >= USE_INTERVAL:
            key.noted_at = now
            self._note(key.principal.api_key_id, now)
        return key.principal

    async def find(self, token: bytes) -> Principal | None:
        """Return a key's principal; None for an invalid key. Raises `RecorderUnavailable` if it cannot be looked up."""
        if not is_key(token) or (digest := digest_of(token)) in self._unknown:
            return None
        async with self._looking:
            while digest not in self._known and digest not in self._unknown:
                version = self._version
                key = await self._look_up(digest)
                # Otherwise the key may have changed during the look-up, or another task was faster.
                if version == self._version and digest not in self._known:
                    self._keep(digest, key)
        return self.known(digest)

    async def catch_up(self, _: int = 0) -> None:
        """Apply all changes in the database since the known version. Raises what the database raises."""
        async with self._catching_up:
            while True:
                async with asyncio.timeout(_TIMEOUT), self._database.reading() as connection:
                    changes = await changes_since(connection, self._version, _PAGE)
                for change in changes:
                    self._version = change.version
                    self._unknown.pop(change.digest, None)
                    self._known.pop(change.digest, None)
                    if change.is_revoked:
                        self._expiring.pop(change.digest, None)
                        self._cut_off((change.initiator_id, change.id), _revoked)
                if len(changes) < _PAGE:
                    return

    async def note_uses(self) -> None:
        """Write the uses of keys since the last call to the database. Raises what the database raises."""
        uses, self._uses = self._uses, {}
        if uses:
            try:
                async with asyncio.timeout(_TIMEOUT), self._database.writing() as connection:
                    await note_uses(connection, uses)
            except BaseException:
                self._uses = uses | self._uses
                raise

    async def aclose(self) -> None:
        """Write the remaining uses, and stop."""
        if self._alarm is not None:
            self._alarm.cancel()
        if self._noting is not None:
            self._noting.cancel()
        if self._note_task is not None:
            self._note_task.cancel()
            await asyncio.gather(self._note_task, return_exceptions=True)
        try:
            await self.note_uses()
        except Exception as error:  # noqa: BLE001 - drivers have errors of their own
            logger.warning("the last uses of client keys could not be written: %s", type(error).__name__)

    async def _look_up(self, digest: bytes) -> ClientKey | None:
        with unavailable("client keys cannot be looked up"):
            async with asyncio.timeout(_TIMEOUT), self._database.reading() as connection:
                return await find(connection, digest)

    def _keep(self, digest: bytes, key: ClientKey | None) -> None:
        if key is None or key.revoked_at is not None or _is_over(key, self._clock()):
            _make_room(self._unknown, MOST_UNKNOWN)
            self._unknown[digest] = None
            return
        principal = Principal(key.initiator_id, key.id, groups=key.groups, models=key.models)
        noted_at = 0.0 if key.last_used_at is None else key.last_used_at.timestamp()
        known = _Known(principal, inf if key.expires_at is None else key.expires_at.timestamp(), noted_at)
        _make_room(self._known, MOST_KEYS)
        self._known[digest] = known
        if known.expires_at < inf:
            _make_room(self._expiring, 2 * MOST_KEYS)
            self._expiring[digest] = known
            self._set_alarm(known.expires_at)

    # Expiry

    def _set_alarm(self, at: float) -> None:
        if at < self._alarm_at:
            if self._alarm is not None:
                self._alarm.cancel()
            self._alarm_at = at
            # A timer of the event loop cannot be arbitrarily far away, so it is set for a day at most.
            wait = min(max(at - self._clock(), _EARLIEST_ALARM), 86400.0)
            self._alarm = self._loop.call_later(wait, self._expire)

    def _expire(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm, self._alarm_at = None, inf
        now = self._clock()
        for digest, key in [one for one in self._expiring.items() if one[1].expires_at <= now]:
            del self._expiring[digest]
            self._known.pop(digest, None)
            self._cut_off(key.principal.key, _expired)
        if self._expiring:
            self._set_alarm(min(key.expires_at for key in self._expiring.values()))

    # Last use

    def _note(self, key_id: str, now: float) -> None:
        self._uses[key_id] = int(now * 1_000_000)
        if self._noting is None:
            self._noting = self._loop.call_later(_NOTE_AFTER, self._begin_noting)

    def _begin_noting(self) -> None:
        self._note_task = self._loop.create_task(self._note_soon(), name="aibridge-client-key-uses")

    async def _note_soon(self) -> None:
        try:
            await self.note_uses()
        except Exception as error:  # noqa: BLE001 - drivers have errors of their own
            logger.warning("the uses of client keys could not be written: %s", type(error).__name__)
        finally:
            # Uses that could not be written are written with the next ones.
            self._noting = None


def _make_room(held: dict[bytes, object] | dict[bytes, None] | dict[bytes, _Known], most: int) -> None:
    if len(held) >= most:
        del held[next(iter(held))]


def _is_over(key: ClientKey, now: float) -> bool:
    return key.expires_at is not None and key.expires_at <= datetime.fromtimestamp(now, UTC)


def _revoked() -> GatewayError:
    return GatewayError(401, "key_revoked", "the client key of this request has been revoked")


def _expired() -> GatewayError:
    return GatewayError(401, "key_expired", "the client key of this request has expired")
