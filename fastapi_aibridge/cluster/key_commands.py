"""`python -m fastapi_aibridge keys`: client keys from the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from ..errors import ConfigurationError
from ..recorder.jsonform import members
from ..recorder.store import SQLStore
from . import client_keys
from .actor import command_line_actor
from .client_key import ClientKey, KeyRequest

_COLUMNS = ("id", "hint", "initiator_id", "label", "groups", "models", "expires_at", "revoked_at", "last_used_at")


def add_key_commands(commands: Any) -> Iterator[argparse.ArgumentParser]:
    """Add the `keys` command, and yield the parser of each of its subcommands."""
    parser = commands.add_parser("keys", help="make, list and revoke client keys (the app needs AIBRIDGE_MANAGED=true)")
    keys = parser.add_subparsers(required=True, metavar="command")

    creating = keys.add_parser("create", help="make a key, and print it: it is shown this once")
    creating.set_defaults(run=_create)
    creating.add_argument("initiator", metavar="INITIATOR", help="who calls with it")
    creating.add_argument("--label", default="", help="what it is for")
    creating.add_argument("--expires", type=_moment, metavar="TIME", help="2026-12-31T00:00:00Z (default: never)")
    creating.add_argument("--groups", type=_names, default=(), metavar="NAMES", help="with commas between them")
    creating.add_argument("--models", type=_names, metavar="PATTERNS", help="'gpt-5*,claude-*' (default: all)")
    yield creating

    listing = keys.add_parser("list", help="list keys, newest first; never the keys themselves")
    listing.set_defaults(run=_list)
    listing.add_argument("--initiator", help="of this one only")
    yield listing

    revoking = keys.add_parser("revoke", help="end a key for good")
    revoking.set_defaults(run=_revoke)
    revoking.add_argument("id", metavar="ID")
    yield revoking


async def _create(url: str, options: argparse.Namespace) -> None:
    try:
        asked = KeyRequest(
            initiator_id=options.initiator,
            label=options.label,
            expires_at=options.expires,
            groups=options.groups,
            models=options.models,
        )
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    async with SQLStore(url, create=True) as store:
        await store.migrate()  # the first key may be made before the app has run
        key, text = await client_keys.create(store.database, asked, command_line_actor())
    # On standard error, so that standard output is the key alone.
    print(f"{key.id} for {key.initiator_id}; the key is not shown again:", file=sys.stderr)  # noqa: T201
    print(text)  # noqa: T201


async def _list(url: str, options: argparse.Namespace) -> None:
    cursor: str | None = None
    async with SQLStore(url) as store:
        while True:
            async with store.database.reading() as connection:
                page = await client_keys.read_page(
                    connection, limit=client_keys.LARGEST_PAGE, cursor=cursor, initiator_id=options.initiator
                )
            if cursor is None:
                print("\t".join(_COLUMNS))  # noqa: T201
            for key in page.items:
                print(_row(key))  # noqa: T201
            if (cursor := page.next_cursor) is None:
                return


async def _revoke(url: str, options: argparse.Namespace) -> None:
    async with SQLStore(url) as store:
        key = await client_keys.revoke(store.database, options.id, command_line_actor())
    if key is None:
        raise ConfigurationError(f"there is no client key {options.id!r}")
    print(_row(key))  # noqa: T201


def _row(key: ClientKey) -> str:
    told = members(key)
    values = [told[name] for name in _COLUMNS]
    shown = ["-" if one in (None, ()) else ",".join(one) if isinstance(one, tuple) else one for one in values]
    return "\t".join(map(_printable, shown))


def _printable(text: str) -> str:
    """Replace unprintable characters: a name must neither steer the terminal nor look like another column."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 2026-12-31T00:00:00Z") from None
    if moment.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r} has no time zone; write 2026-12-31T00:00:00Z")
    return moment


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
