"""Providers and MCP servers in the recorder's database, for all workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import BigInteger, Column, Row, Table, Text, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from ..errors import ConfigurationError, SettingsError
from ..recorder.clock import now_of
from ..recorder.database import Database
from ..recorder.schema import metadata
from ..recorder.text import dump, dump_bytes, load
from . import audit
from .cipher import Cipher
from .managed_form import NAME, Body, Kind, ManagedEntry, audited, checked, split
from .versions import SETTINGS, bump

MAX_ENTRIES = 1000
"""Of each kind: all workers hold all of them."""
_TRIES = 5
"""Times that a change is made anew because somebody else was faster."""

managed_settings = Table(
    "aibridge_managed_settings",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    # JSON; the members that are secret stand apart, encrypted.
    Column("settings", Text, nullable=False),
    Column("secrets", Text),
    # Of all settings, when this entry was changed last: it tells whether somebody else has changed it.
    Column("version", BigInteger, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
)
_table = managed_settings.c


class Outdated(ConfigurationError):
    """The entry is not the one that the change was meant for."""


class TooManyEntries(ConfigurationError):
    pass


class _Lost(Exception):
    """Somebody else was faster."""


class ManagedSettings:
    """Reads and changes the entries. Without a `cipher`, none with secrets can be written or read."""

    def __init__(self, database: Database, cipher: Cipher | None) -> None:
        self._database = database
        self._cipher = cipher

    async def all(self) -> Sequence[ManagedEntry]:
        """In the order of their names. Raises what the driver raises."""
        async with self._database.reading() as connection:
            rows = await connection.execute(select(managed_settings).order_by(_table.kind, _table.name))
            return [self._entry(row) for row in rows]

    async def one(self, kind: Kind, name: str) -> ManagedEntry | None:
        if not NAME.fullmatch(name):
            return None  # PostgreSQL refuses some texts
        async with self._database.reading() as connection:
            wanted = select(managed_settings).where(_table.kind == kind, _table.name == name)
            row = (await connection.execute(wanted)).one_or_none()
        return None if row is None else self._entry(row)

    async def change(
        self, kind: Kind, name: str, edit: Callable[[ManagedEntry | None], Body | None], *, actor: str, action: str
    ) -> ManagedEntry | None:
        """Put what `edit` makes of the entry in its place, None to remove it; returns the entry as it is then.

        The change, its version for all workers and its line in the audit are one transaction. `edit` may raise, and is
        called again where somebody else was faster. Raises `InvalidSettings` for what does not validate, and
        `SettingsError` where secrets cannot be encrypted; nothing has changed then.
        """
        for _ in range(_TRIES):
            before = await self.one(kind, name)
            body = edit(before)
            if body is None and before is None:
                return None
            row = None if body is None else self._row(kind, name, body)
            with suppress(_Lost):
                async with self._database.writing() as connection:
                    # Never the same twice, even where an entry is removed and made again.
                    version = await bump(connection, SETTINGS)
                    await self._replace(connection, kind, name, before, row and row | {"version": version})
                    await audit.record(
                        connection,
                        actor=actor,
                        action=f"{kind}.{action}",
                        object=f"{kind}/{name}",
                        before=None if before is None else audited(kind, before.body),
                        after=None if body is None else audited(kind, body),
                    )
                return None if body is None else ManagedEntry(kind=kind, name=name, body=body, version=version)
        raise Outdated("others change this at the same time; try again")

    async def rotate(self, *, actor: str) -> int:
        """Encrypt all secrets anew, with the first key; returns how many entries have some. One line in the audit.

        Raises `SettingsError` where some cannot be decrypted: nothing has changed then.
        """
        if self._cipher is None:
            raise _no_cipher()
        async with self._database.writing() as connection:
            # Locked: a secret that is changed meanwhile must not be put back.
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
        self,
        connection: AsyncConnection,
        kind: Kind,
        name: str,
        before: ManagedEntry | None,
        row: dict[str, Any] | None,
    ) -> None:
        """Raises `TooManyEntries`, and `_Lost` where the entry is not the one any more that the change was made of."""
        is_sqlite = connection.dialect.name == "sqlite"
        if row is not None:
            row["changed_at"] = now_of(is_sqlite=is_sqlite)
        if before is None:
            number = await connection.scalar(
                select(func.count()).select_from(managed_settings).where(_table.kind == kind)
            )
            if (number or 0) >= MAX_ENTRIES:
                raise TooManyEntries(f"there are {MAX_ENTRIES} in the database, which is the most")
            insert = (sqlite.insert if is_sqlite else postgresql.insert)(managed_settings)
            done = await connection.execute(insert.values(**row or {}).on_conflict_do_nothing())
        else:
            same = (_table.kind == kind) & (_table.name == name) & (_table.version == before.version)
            changed = delete(managed_settings) if row is None else update(managed_settings).values(**row)
            done = await connection.execute(changed.where(same))
        if done.rowcount < 1:
            raise _Lost

    def _row(self, kind: Kind, name: str, body: Body) -> dict[str, Any]:
        checked(kind, name, body)
        plain, secret = split(kind, body)
        token = None
        if secret:
            if self._cipher is None:
                raise _no_cipher()
            token = self._cipher.encrypted(dump_bytes(secret)).decode()
        return {"kind": kind, "name": name, "settings": dump(plain), "secrets": token}

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
