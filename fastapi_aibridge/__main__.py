"""The command `python -m fastapi_aibridge`, which works on the records' database from outside the app."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import stat
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

from pydantic import SecretStr
from sqlalchemy.exc import OperationalError, ProgrammingError, SQLAlchemyError

from .cluster.actor import command_line_actor
from .cluster.erasure import erase
from .cluster.key_commands import add_key_commands
from .cluster.managed_commands import add_managed_commands
from .errors import AIBridgeError, RedisUnavailable
from .observability.console import STEERING
from .recorder.database import Database
from .recorder.export import ExportFormat, export
from .recorder.problems import database_place
from .recorder.recorder import InterceptionQuery
from .recorder.sql import DEFAULT_RETENTION
from .recorder.store import SQLStore
from .settings.database import ConfiguredDatabase, configured_database, configured_redis

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return the process's exit status."""
    options = _parser().parse_args(arguments)
    database: Database | None = None
    try:
        configured = ConfiguredDatabase(SecretStr(options.url), "--url") if options.url else configured_database()
        url = configured.url.get_secret_value()
        database = Database(url)
        # To standard error: an export may go to standard output.
        _say(f"database: {database_place(database.url)} ({configured.source})")
        asyncio.run(options.run(url, options))
    except BrokenPipeError:
        # The reader has closed the pipe; without this the interpreter would fail to flush the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
    except AIBridgeError as error:
        _say(f"error: {error}")
    except (SQLAlchemyError, OSError) as error:
        _say(f"error: {_explained(error, database)}")
    else:
        return 0
    return 1


def _explained(error: SQLAlchemyError | OSError, database: Database | None) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"  # only --output names a file
    if database is None:
        return type(error).__name__
    told = database.unusable(error)
    missing = isinstance(error, ProgrammingError | OperationalError) and re.search("no such table|does not exist", told)
    return f"{told}; has it been migrated? (python -m fastapi_aibridge migrate)" if missing else told


def _say(text: str) -> None:
    print(text.translate(STEERING), file=sys.stderr)  # noqa: T201


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fastapi_aibridge", description="Work on the records' database.")
    commands = parser.add_subparsers(required=True, metavar="command")

    exporting = commands.add_parser("export", help="write interceptions out, newest first")
    exporting.set_defaults(run=_export)
    exporting.add_argument("--format", type=ExportFormat, choices=list(ExportFormat), default=ExportFormat.JSONL)
    exporting.add_argument("--output", "-o", type=Path, metavar="FILE", help="default: standard output")
    for name in ("initiator-id", "provider", "model", "session-id"):
        exporting.add_argument(f"--{name}")
    exporting.add_argument("--started-after", type=_moment, metavar="TIME", help="from this time on (ISO 8601)")
    exporting.add_argument("--started-before", type=_moment, metavar="TIME", help="before this time (ISO 8601)")

    pruning = commands.add_parser("prune", help="delete old interceptions, in small batches")
    pruning.set_defaults(run=_prune)
    pruning.add_argument(
        "--older-than",
        type=_duration,
        default=timedelta(seconds=DEFAULT_RETENTION),
        metavar="DURATION",
        help="30d, 12h, 90m, or a number of seconds (default: 60d)",
    )

    erasing = commands.add_parser("erase", help="erase what is recorded of one initiator")
    erasing.set_defaults(run=_erase)
    erasing.add_argument("initiator", metavar="INITIATOR")
    erasing.add_argument(
        "--content", action="store_true", help="only what was said: prompts, arguments, thoughts, errors"
    )

    migrating = commands.add_parser("migrate", help="bring the tables to this release's schema")
    migrating.set_defaults(run=_migrate)

    adding = (add_key_commands, add_managed_commands)
    for command in (exporting, pruning, erasing, migrating, *(one for add in adding for one in add(commands))):
        command.add_argument("--url", help="the database (default: the one of the app's settings)")
    return parser


async def _export(url: str, options: argparse.Namespace) -> None:
    query = InterceptionQuery(
        initiator_id=options.initiator_id,
        provider=options.provider,
        model=options.model,
        session_id=options.session_id,
        started_after=options.started_after,
        started_before=options.started_before,
    )
    async with SQLStore(url) as store:
        if options.output is None:
            await _write(sys.stdout.buffer, store, query, options.format)
        else:
            with _private(options.output) as output:
                await _write(output, store, query, options.format)


async def _write(output: BinaryIO, store: SQLStore, query: InterceptionQuery, format: ExportFormat) -> None:  # noqa: A002
    shown = output.isatty()
    async for chunk in export(store, query, format=format):
        # A carriage return would make a terminal write over the line.
        output.write(chunk.replace(b"\r", b"") if shown else chunk)
    output.flush()


def _private(path: Path) -> BinaryIO:
    """Open a file for writing, truncated and accessible to its owner only: an export holds prompts."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    if hasattr(os, "fchmod") and stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.fchmod(descriptor, 0o600)  # a file that existed before may be open to others
    return os.fdopen(descriptor, "wb")


async def _prune(url: str, options: argparse.Namespace) -> None:
    async with SQLStore(url) as store:
        count = await store.prune(datetime.now(UTC) - options.older_than)
    print(f"{count} interceptions deleted")  # noqa: T201


async def _erase(url: str, options: argparse.Namespace) -> None:
    async with SQLStore(url) as store:
        everything = not options.content
        count = await erase(store.database, options.initiator, everything=everything, actor=command_line_actor())
    print(f"{count} interceptions erased; those that run are erased once they have ended")  # noqa: T201
    if (configured := configured_redis()) is not None:
        await _forget(*configured, options.initiator)


async def _forget(url: SecretStr, prefix: str, initiator_id: str) -> None:
    """Delete what the app's workers share about the initiator in Redis."""
    from .cluster.limit_rules import counters_of
    from .cluster.redis import SharedRedis  # needs redis-py, which most installations lack
    from .cluster.shared_state import forget_initiator

    async with SharedRedis(url.get_secret_value(), prefix=prefix) as redis:
        try:
            await redis.delete(counters_of(initiator_id))
            await forget_initiator(redis, initiator_id)
        except RedisUnavailable:
            _say("Redis is away: what it holds of the initiator ends within a day by itself; try again for less")


async def _migrate(url: str, _: argparse.Namespace) -> None:
    async with SQLStore(url, create=True) as store:
        changed = await store.migrate()
    print("the tables have been migrated" if changed else "there was nothing to migrate")  # noqa: T201


def _duration(text: str) -> timedelta:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 60d or 12h")
    return timedelta(seconds=float(match[1]) * _UNITS[match[2]])


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 2026-01-31T12:00:00Z") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


if __name__ == "__main__":
    sys.exit(main())
