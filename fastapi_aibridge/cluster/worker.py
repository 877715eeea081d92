"""The state of workers as operators see it, and the outcome of a change on each of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from ..recorder.jsonform import DOCUMENTED


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One worker process of an app."""

    __pydantic_config__ = DOCUMENTED

    id: str
    host: str
    pid: int
    started_at: datetime
    last_seen: datetime
    provider_version: int | None
    """The number of times its providers have been replaced; unset while it starts."""
    config_version: int | None
    """The version of the settings in force there; unset while it starts."""
    error: str | None
    """The reason why a newer version is not in force there; unset if the newest is."""


@dataclass(frozen=True, slots=True)
class FailedWorker:
    __pydantic_config__ = DOCUMENTED

    worker: str
    """Its id, as in `/admin/workers`."""
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkersOutcome:
    """The outcome of a change on all workers that share the recorder's database."""

    __pydantic_config__ = DOCUMENTED

    applied: int = 1
    """Workers that have the change in force, this one included."""
    failed: list[FailedWorker] = field(default_factory=list)
    """Workers that could not apply it, and keep what they had."""
    silent: int = 0
    """Workers that have not reported within 5 s; they catch up by themselves."""
