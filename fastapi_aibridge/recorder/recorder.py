"""The two sides of the records, as protocols: writing them down, and reading them back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, runtime_checkable

from .records import Ending, Facts, Interception, InterceptionRecord

HEAVIEST_PAGE = 4 * 1024 * 1024
"""Bytes of text in one page of a list; a single record may have more."""


@runtime_checkable
class Recorder(Protocol):
    """Where interceptions are written down; an app may bring its own.

    The three methods are called in this order, `start` and `end` once for each interception and `observe` once for
    each finished round of an agentic loop. An object that is also an async context manager is entered and left with
    the app's lifespan; one with an attribute `available` that is false takes the process out of service (`/readyz`).
    """

    async def start(self, interception: Interception) -> None:
        """Write the start down; durable when it returns. If it raises, the request is refused with 503."""

    async def observe(self, interception_id: str, facts: Facts) -> None:
        """Write down what a round showed, while the interception goes on."""

    async def end(self, interception_id: str, ending: Ending, facts: Facts) -> None:
        """Write down the end, and the facts that `observe` has not been given. May return before they are durable."""


@runtime_checkable
class ResumableRecorder(Protocol):
    """A recorder that takes up an interception again which was interrupted, once its outcome is known after all."""

    async def resume(self, provider: str, object_id: str, initiator_id: str) -> InterceptionRecord | None:
        """That of the initiator's interception in which the provider made this response, if it was interrupted and
        has no usage; `end` then writes its end anew. Raises `RecorderUnavailable`.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class InterceptionFilter:
    """Which interceptions are meant. The bounds in time are half open: from `started_after` on, before
    `started_before`.
    """

    initiator_id: str | None = None
    provider: str | None = None
    model: str | None = None
    session_id: str | None = None
    started_after: datetime | None = None
    started_before: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InterceptionQuery(InterceptionFilter):
    """Which interceptions to list, newest first, `limit` of them from the cursor of the page before. The bounds in
    time are half open: from `started_after` on, before `started_before`.
    """

    limit: int = 50
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    items: list[InterceptionRecord]
    next_cursor: str | None


class InvalidCursor(ValueError):
    """A cursor that this store did not hand out."""


@runtime_checkable
class InterceptionStore(Protocol):
    """A recorder that can be read back; the admin routes need one."""

    async def list(self, query: InterceptionQuery) -> Page:
        """One page. Raises `InvalidCursor`."""

    async def get(self, interception_id: str) -> InterceptionRecord | None: ...
