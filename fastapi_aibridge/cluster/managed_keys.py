"""Client keys for the admin routes, with the cache by which this worker authenticates clients."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

from pydantic import SecretStr

from ..errors import ConfigurationError
from ..masking import hint
from ..recorder.database import Database
from . import client_keys
from .client_key import ClientKey, KeyRequest
from .client_keys import KeyPage
from .key_cache import CutOff, KeyCache
from .version_watch import VersionWatch

logger = logging.getLogger(__name__)

_FROM_SETTINGS = "settings:"
"""The prefix of the ids of keys from the settings."""


class ManagedKeys:
    """The client keys in the database, listed together with those of the settings, which are read-only."""

    def __init__(self, database: Database, cache: KeyCache) -> None:
        self._database = database
        self.cache = cache

    async def create(self, asked: KeyRequest, actor: str) -> tuple[ClientKey, str]:
        """Create a key. Returns it with its text, which cannot be shown again."""
        made = await client_keys.create(self._database, asked, actor)
        await self._follow()
        return made

    async def revoke(self, key_id: str, actor: str) -> ClientKey | None:
        """Revoke a key and return it; None if there is no such key. This worker's cache drops it before this returns,
        if the database can be read.

        Raises `ConfigurationError` for a key of the settings.
        """
        if key_id.startswith(_FROM_SETTINGS):
            raise ConfigurationError(f"{key_id!r} comes from the settings (CLIENT_KEYS) and can only be removed there")
        key = await client_keys.revoke(self._database, key_id, actor)
        await self._follow()
        return key

    async def _follow(self) -> None:
        """Apply this worker's own change at once. A failure is only logged, and the change is seen later like those of
        other workers: the caller must get the committed result, above all a new key, which cannot be shown again.
        """
        try:
            await self.cache.catch_up()
        except Exception as error:  # noqa: BLE001 - drivers have errors of their own
            logger.warning("a change of client keys is followed later: %s", type(error).__name__)

    async def page(
        self, settings: Mapping[str, Iterable[SecretStr]], *, limit: int, cursor: str | None, initiator_id: str | None
    ) -> KeyPage:
        """Return one page of the database's keys, newest first; the first page begins with the keys of the settings.

        Raises `InvalidCursor`.
        """
        await self.cache.note_uses()
        async with self._database.reading() as connection:
            page = await client_keys.read_page(connection, limit=limit, cursor=cursor, initiator_id=initiator_id)
        if cursor is not None:
            return page
        own = [key for key in keys_of_settings(settings) if initiator_id in (None, key.initiator_id)]
        return replace(page, items=[*own, *page.items])


def keys_of_settings(settings: Mapping[str, Iterable[SecretStr]]) -> list[ClientKey]:
    return [
        ClientKey(
            id=f"{_FROM_SETTINGS}{initiator}:{number}",
            hint="sha256:..." if (text := key.get_secret_value()).startswith("sha256:") else hint(text),
            initiator_id=initiator,
            label="",
            groups=(),
            models=None,
            created_at=None,
            expires_at=None,
            origin="settings",
        )
        for initiator, keys in settings.items()
        for number, key in enumerate(keys, 1)
    ]


@asynccontextmanager
async def managed_keys(
    database: Database | None, versions: VersionWatch | None, cut_off: CutOff
) -> AsyncIterator[ManagedKeys]:
    """Provide the client keys. Raises `ConfigurationError` without the recorder's database."""
    if database is None or versions is None:
        raise ConfigurationError(
            "AIBRIDGE_MANAGED needs the recorder's database: leave AIBRIDGE_RECORDER__ENABLED on, and give "
            "AIBridge(recorder=...) a SQLRecorder, if any"
        )
    cache = KeyCache(database, versions, cut_off)
    try:
        yield ManagedKeys(database, cache)
    finally:
        await cache.aclose()
