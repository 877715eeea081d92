"""Client keys as the admin routes manage them, and as this worker lets callers in."""

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
from .client_key import SETTINGS, ClientKey, KeyRequest
from .client_keys import KeyPage
from .key_cache import CutOff, KeyCache
from .version_watch import VersionWatch

logger = logging.getLogger(__name__)

_FROM_SETTINGS = "settings:"
"""How the ids of keys begin that the settings have."""


class ManagedKeys:
    """The keys in the database beside those of the settings, which are listed only."""

    def __init__(self, database: Database, cache: KeyCache) -> None:
        self._database = database
        self.cache = cache

    async def create(self, asked: KeyRequest, actor: str) -> tuple[ClientKey, str]:
        """The new key, and its text."""
        made = await client_keys.create(self._database, asked, actor)
        await self._follow()
        return made

    async def revoke(self, key_id: str, actor: str) -> ClientKey | None:
        """The key, which nobody can use here any more when this returns; None where there is none.

        Raises `ConfigurationError` for one of the settings.
        """
        if key_id.startswith(_FROM_SETTINGS):
            raise ConfigurationError(f"{key_id!r} comes from the settings (CLIENT_KEYS) and can only be removed there")
        key = await client_keys.revoke(self._database, key_id, actor)
        await self._follow()
        return key

    async def _follow(self) -> None:
        """Learn of the own change at once. Where that fails, it is heard of as others' changes are: what has been
        committed is told, above all a key that cannot be shown again.
        """
        try:
            await self.cache.catch_up()
        except Exception as error:  # noqa: BLE001 - drivers have errors of their own
            logger.warning("a change of client keys is followed later: %s", type(error).__name__)

    async def page(
        self, settings: Mapping[str, Iterable[SecretStr]], *, limit: int, cursor: str | None, initiator_id: str | None
    ) -> KeyPage:
        """Keys of the database, newest first; on the first page those of the settings come before them. Raises
        `InvalidCursor`.
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
            origin=SETTINGS,
        )
        for initiator, keys in settings.items()
        for number, key in enumerate(keys, 1)
    ]


@asynccontextmanager
async def managed_keys(
    database: Database | None, versions: VersionWatch | None, cut_off: CutOff
) -> AsyncIterator[ManagedKeys]:
    """Raises `ConfigurationError` without the database of the recorder."""
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
