"""Providers and MCP servers stored in the recorder's database, for all workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import BigInteger, Column, Row, Table, Text, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ..errors import ConfigurationError, SettingsError
from ..recorder.clock import NOW
from ..recorder.database import Database
from ..recorder.schema import metadata
from ..recorder.text import dump, dump_bytes, load
from . import audit
from .cipher import Cipher
from .managed_form import NAME, Body, Kind, ManagedEntry, audited, checked, split
from .versions import SETTINGS, bump

MAX_ENTRIES = 1000
"""Entries of each kind: every worker holds all of them."""

managed_settings = Table(
    "aibridge_managed_settings",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    # JSON without the secret members, which are stored encrypted in `secrets`.
    Column("settings", Text, nullable=False),
    Column("secrets", Text),
    # The version of all settings at which this entry last changed, to detect concurrent edits.
    Column("version", BigInteger, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
)
_table = managed_settings.c


class TooManyEntries(ConfigurationError):
    pass


class ManagedSettings:
    """Reads and changes the stored entries. Without a `cipher`, those with secrets cannot be written or read."""

    def __init__(self, database: Database, cipher: Cipher | None) -> None:
        self._database = database
        self._cipher = cipher

    async def all(self) -> Sequence[ManagedEntry]:
        """Return all entries, ordered by kind and name. Raises what the driver raises."""
        async with self._database.reading() as connection:
            rows = await connection.execute(select(managed_settings).order_by(_table.kind, _table.name))
            return [self._entry(row) for row in rows]

    async def one(self, kind: Kind, name: str) -> ManagedEntry | None:
        async with self._database.reading() as connection:
            return await self._find(connection, kind, name)

    async def change(
        self, kind: Kind, name: str, edit: Callable[[ManagedEntry | None], Body | None], *, actor: str, action: str
    ) -> ManagedEntry | None:
        """Replace an entry by what `edit` returns for it; None removes it. Returns the new entry, or None.

        The change, its version for all workers and its audit entry are one transaction, and changes are serialized.
        `edit` may raise. Raises `InvalidSettings` for an invalid body, `SettingsError` if secrets cannot be encrypted,
        and `TooManyEntries`; nothing has changed then.
        """
        async with self._database.writing() as connection:
            # A version is never reused, even if an entry is removed and created again. Concurrent changes wait here.
            version = await bump(connection, SETTINGS)
            before = await self._find(connection, kind, name)
            body = edit(before)
            if body is None and before is None:
                await connection.rollback()
                return None
            after = None if body is None else ManagedEntry(kind=kind, name=name, body=body, version=version)
            await self._replace(connection, before, after)
            await audit.record(
                connection,
                actor=actor,
                action=f"{kind}.{action}",
                object=f"{kind}/{name}",
                before=None if before is None else audited(kind, before.body),
                after=None if body is None else audited(kind, body),
            )
        return after

    async def rotate(self, *, actor: str) -> int:
        """Encrypt all secrets anew with the first key, as one audit entry. Returns the number of entries changed.

        Raises `SettingsError` if some cannot be decrypted; nothing has changed then.
        """
        if self._cipher is None:
            raise _no_cipher()
        async with self._database.writing() as connection:
            # Locked, so that a secret changed meanwhile is not overwritten with its old value.
            wanted = select(managed_settings).where(_table.secrets.is_not(None)).order_by(_table.kind, _table.name)
            rows = (await connection.execute(wanted.with_for_update())).all()
            for row in rows:
                plain = self._cipher.decrypted(row.secrets.encode())
                if plain is None:
                    raise SettingsError(f"AIBRIDGE_SECRET_KEYS: no key fits the secrets of {row.kind} {row.name!r}")
                token = self._cipher.encrypted(plain).decode()
                same = (_table.kind == row.kind) & (_table.name == row.name)
                await connection.execute(update(managed_settings).where(same).values(secrets=token))
            await audit.record(
                connection, actor=actor, action="secrets.rotate", object="secrets", after={"entries": len(rows)}
            )
        return len(rows)

    async def _replace(
        self, connection: AsyncConnection, before: ManagedEntry | None, after: ManagedEntry | None
    ) -> None:
        entry = before or after
        assert entry is not None  # noqa: S101 - for the type checker
        same = (_table.kind == entry.kind) & (_table.name == entry.name)
        if after is None:
            await connection.execute(delete(managed_settings).where(same))
            return
        row = self._row(after) | {"changed_at": NOW}
        if before is not None:
            await connection.execute(update(managed_settings).values(**row).where(same))
            return
        number = select(func.count()).select_from(managed_settings).where(_table.kind == entry.kind)
        if (await connection.scalar(number) or 0) >= MAX_ENTRIES:
            raise TooManyEntries(f"there are {MAX_ENTRIES} in the database, which is the most")
        await connection.execute(insert(managed_settings).values(**row))

    def _row(self, entry: ManagedEntry) -> dict[str, Any]:
        checked(entry.kind, entry.name, entry.body)
        plain, secret = split(entry.kind, entry.body)
        token = None
        if secret:
            if self._cipher is None:
                raise _no_cipher()
            token = self._cipher.encrypted(dump_bytes(secret)).decode()
        return {
            "kind": entry.kind,
            "name": entry.name,
            "settings": dump(plain),
            "secrets": token,
            "version": entry.version,
        }

    async def _find(self, connection: AsyncConnection, kind: Kind, name: str) -> ManagedEntry | None:
        if not NAME.fullmatch(name):
            return None  # PostgreSQL rejects some texts
        wanted = select(managed_settings).where(_table.kind == kind, _table.name == name)
        row = (await connection.execute(wanted)).one_or_none()
        return None if row is None else self._entry(row)

    def _entry(self, row: Row[Any]) -> ManagedEntry:
        body: dict[str, Any] = load(row.settings)
        problem = None
        if row.secrets is not None:
            plain = None if self._cipher is None else self._cipher.decrypted(row.secrets.encode())
            if plain is None:
                problem = "its secrets cannot be decrypted: AIBRIDGE_SECRET_KEYS has no key that fits"
            else:
                body |= load(plain.decode())
        return ManagedEntry(kind=Kind(row.kind), name=row.name, body=body, version=row.version, problem=problem)


def _no_cipher() -> SettingsError:
    return SettingsError(
        "AIBRIDGE_SECRET_KEYS is not set, so that no secret can be stored; make a key with: python -c "
        "'import base64, os; print(base64.urlsafe_b64encode(os.urandom(32)).decode())'"
    )
