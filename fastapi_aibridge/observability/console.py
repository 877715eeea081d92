"""Log output for processes without a logging configuration, such as plain uvicorn."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Literal

LOGGER = logging.getLogger("fastapi_aibridge")
LogFormat = Literal["text", "json"]

_PAUSE = 0.1
"""Seconds for which interception lines are buffered, because a write for each would cost more than the line."""


class Console(logging.Handler):
    """A handler that writes the package's log records to standard error while the root logger has no handlers.

    Fields that change: `_lines`, the buffer, `_writing`, its timer, and `users`.
    """

    def __init__(self, format_: LogFormat) -> None:
        super().__init__()
        self.format_ = format_
        self.users = 0
        self._lines: list[str] = []
        self._writing: asyncio.TimerHandle | None = None
        self.setFormatter(_JSONFormatter() if format_ == "json" else _TextFormatter())

    @property
    def alone(self) -> bool:
        """Whether this is the only handler that log records of the package reach."""
        return LOGGER.handlers == [self] and not (LOGGER.propagate and logging.root.handlers)

    def emit(self, record: logging.LogRecord) -> None:
        if logging.root.handlers:
            return  # the app has configured logging after this handler was added
        with suppress(Exception):
            self.write(self.format(record))
            self.flush()

    def write(self, line: str) -> None:
        """Buffer the line, to be written together with others a moment later."""
        self._lines.append(line)
        if self._writing is None:
            try:
                self._writing = asyncio.get_running_loop().call_later(_PAUSE, self.flush)
            except RuntimeError:  # a thread without an event loop
                self.flush()

    def flush(self) -> None:
        lines, self._lines = self._lines, []
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
        if lines:
            with suppress(OSError, ValueError):  # standard error may be closed
                sys.stderr.write("\n".join((*lines, "")))
                sys.stderr.flush()


@contextmanager
def console(format_: LogFormat) -> Iterator[Console | None]:
    """Write the package's log records to standard error while the block runs, unless logging is configured.

    The app's own logging is never changed: if the package's logger or the root logger has a handler, this does nothing
    and yields None. No level is set.
    """
    shared = next((one for one in LOGGER.handlers if isinstance(one, Console)), None)
    if shared is None and LOGGER.hasHandlers():
        yield None
        return
    handler = shared or Console(format_)
    if shared is None:
        LOGGER.addHandler(handler)
    handler.users += 1
    try:
        yield handler
    finally:
        handler.users -= 1
        handler.flush()
        if not handler.users:
            LOGGER.removeHandler(handler)


class _TextFormatter(logging.Formatter):
    """The formatter of text lines: in uvicorn's style, with characters that steer a terminal escaped."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname + ':':<9} {super().format(record)}".translate(STEERING)


STEERING = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}


class _JSONFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        told = {"message": record.getMessage()}
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps({"time": timestamp(record.created), "level": record.levelname, "logger": record.name, **told})


def timestamp(moment: float) -> str:
    """Format seconds since 1970 as RFC 3339 in UTC, with milliseconds."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
