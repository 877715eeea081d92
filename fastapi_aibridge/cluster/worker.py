"""What is told of workers: who they are, what they have in force, and what became of a change on each of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ..recorder.jsonform import timestamp


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One process of an app."""

    id: str
    host: str
    pid: int
    started_at: datetime
    last_seen: datetime
    provider_version: int | None
    """How often its providers have been replaced since its start; None while it starts."""
    config_version: int | None
    """The version of the settings that is in force there; None while it starts."""
    error: str | None
    """Why it keeps that one, where there is a newer one."""

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
    """What became of a change."""

    applied: int = 1
    """Workers that have it in force."""
    failed: list[FailedWorker] = field(default_factory=list)
    """Those that keep what they had."""
    silent: int = 0
    """Those that have not answered in time; they catch up by themselves."""
