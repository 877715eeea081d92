"""The state of workers as operators see it, and the outcome of a change on each of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ..recorder.jsonform import timestamp


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One worker process of an app."""

    id: str
    host: str
    pid: int
    started_at: datetime
    last_seen: datetime
    provider_version: int | None
    """The number of times its providers have been replaced since its start; None while it starts."""
    config_version: int | None
    """The version of the settings in force there; None while it starts."""
    error: str | None
    """The reason why a newer version is not in force there; None if the newest is."""

    def json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "host": self.host,
            "pid": self.pid,
            "started_at": timestamp(self.started_at),
            "last_seen": timestamp(self.last_seen),
            "provider_version": self.provider_version,
            "config_version": self.config_version,
            "error": self.error,
        }


@dataclass(frozen=True, slots=True)
class FailedWorker:
    worker: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkersOutcome:
    """The outcome of a change on all workers."""

    applied: int = 1
    """Workers that have the change in force."""
    failed: list[FailedWorker] = field(default_factory=list)
    """Workers that could not apply it, and keep what they had."""
    silent: int = 0
    """Workers that have not reported in time; they catch up by themselves."""
