"""The protocols of recorders: one for writing records, and one for reading them back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, runtime_checkable

from .records import Ending, Facts, Interception, InterceptionRecord

HEAVIEST_PAGE = 4 * 1024 * 1024
"""Bytes of text in one page of a listing; a single larger record is a page of its own."""


@runtime_checkable
class Recorder(Protocol):
    """A store that interceptions are written to; an app may bring its own.

    The three methods are called in this order: `start` and `end` once for each interception, `observe` once for each
    finished round of an agentic loop. A recorder that is also an async context manager is entered and exited with the
    app's lifespan. While an attribute `available` is false, the process reports that it is not ready (`/readyz`).
    """

    async def start(self, interception: Interception) -> None:
        """Write the start; it must be durable on return. If this raises, the request is refused with 503."""

    async def observe(self, interception_id: str, facts: Facts) -> None:
        """Write the facts of a finished round while the interception continues."""

    async def end(self, interception_id: str, ending: Ending, facts: Facts) -> None:
        """Write the end, and the facts that `observe` was not given. May return before they are durable."""


@runtime_checkable
class ResumableRecorder(Protocol):
    """A recorder that can resume an interrupted interception once its outcome becomes known."""

    async def resume(self, provider: str, object_id: str, initiator_id: str) -> InterceptionRecord | None:
        """Resume the initiator's interception in which the provider made this response, so that `end` can replace its
        end. Returns its record, or None unless it was interrupted and has no usage. Raises `RecorderUnavailable`.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class InterceptionFilter:
    """Conditions on interceptions. The time range is half open: `started_after` <= start < `started_before`."""

    initiator_id: str | None = None
    provider: str | None = None
    model: str | None = None
    session_id: str | None = None
    started_after: datetime | None = None
    started_before: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InterceptionQuery(InterceptionFilter):
    """A query for one page of interceptions, newest first: at most `limit`, after the `cursor` of the page before. The
    time range is half open: `started_after` <= start < `started_before`.
    """

    limit: int = 50
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    items: list[InterceptionRecord]
    next_cursor: str | None


class InvalidCursor(ValueError):
    """The cursor was not returned by this store."""


@runtime_checkable
class InterceptionStore(Protocol):
    """A recorder that can be read back; the admin routes need one."""

    async def list(self, query: InterceptionQuery) -> Page:
        """Return one page. Raises `InvalidCursor`."""

    async def get(self, interception_id: str) -> InterceptionRecord | None: ...
