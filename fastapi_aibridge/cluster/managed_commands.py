"""The commands `import`, `export-settings` and `rotate-secrets`: managed settings from the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

from ..errors import ConfigurationError
from ..installing import install_command
from ..recorder.store import SQLStore
from ..settings import Settings
from .actor import command_line_actor
from .cipher import Cipher
from .managed_form import Body, InvalidSettings, Kind, ManagedEntry, split
from .managed_settings import ManagedSettings
from .plain_members import plain_members

_SECTIONS = {Kind.PROVIDER: "providers", Kind.MCP_SERVER: "mcp_servers"}
_OMITTED = {"config_file", "secrets_dir"}


def add_managed_commands(commands: Any) -> Iterator[argparse.ArgumentParser]:
    """Add the commands, and yield the parser of each."""
    importing = commands.add_parser("import", help="write the settings' providers and MCP servers into the database")
    importing.set_defaults(run=_import)
    yield importing

    exporting = commands.add_parser("export-settings", help="write all settings as TOML, without their secrets")
    exporting.set_defaults(run=_export)
    yield exporting

    rotating = commands.add_parser("rotate-secrets", help="encrypt all secrets anew, with the first of the secret keys")
    rotating.set_defaults(run=_rotate)
    yield rotating


@asynccontextmanager
async def _managed(url: str, settings: Settings, *, create: bool = False) -> AsyncIterator[ManagedSettings]:
    async with SQLStore(url, create=create) as store:
        if create:
            await store.migrate()
        yield ManagedSettings(store.database, Cipher(settings.secret_keys) if settings.secret_keys else None)


async def _import(url: str, _: argparse.Namespace) -> None:
    settings = Settings.load()
    count = refused = 0
    async with _managed(url, settings, create=True) as managed:
        for kind, section in _SECTIONS.items():
            for name, one in getattr(settings, section).items():
                body = plain_members(one, with_secrets=True)
                if await managed.one(kind, name) is not None:
                    print(f"{kind} {name!r} is in the database already", file=sys.stderr)  # noqa: T201
                    continue
                try:
                    await managed.change(kind, name, _made(body), actor=command_line_actor(), action="import")
                except InvalidSettings as error:
                    print(f"{kind} {name!r} cannot be imported: {error}", file=sys.stderr)  # noqa: T201
                    refused += 1
                else:
                    count += 1
    print(f"{count} imported; remove them from the settings, which come before the database")  # noqa: T201
    if refused:
        raise ConfigurationError(f"{refused} could not be imported and must stay in the settings")


def _made(body: Body) -> Callable[[ManagedEntry | None], Body]:
    return lambda _: body


async def _export(url: str, _: argparse.Namespace) -> None:
    try:
        import tomli_w
    except ImportError:
        raise ConfigurationError(f"export-settings needs tomli-w: {install_command('managed')}") from None
    settings = Settings.load()
    told: dict[str, Any] = plain_members(settings, with_secrets=False)
    if settings.managed:
        async with _managed(url, settings) as managed:
            for entry in await managed.all():
                told.setdefault(_SECTIONS[entry.kind], {}).setdefault(entry.name, split(entry.kind, entry.body)[0])
    print(tomli_w.dumps({name: value for name, value in told.items() if name not in _OMITTED}), end="")  # noqa: T201


async def _rotate(url: str, _: argparse.Namespace) -> None:
    async with _managed(url, Settings.load()) as managed:
        count = await managed.rotate(actor=command_line_actor())
    print(f"the secrets of {count} providers and MCP servers are encrypted with the first key")  # noqa: T201
