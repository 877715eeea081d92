"""Reloads of a process that shares no database with other workers."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Generic, TypeVar
from uuid import uuid4

from .worker import Worker, WorkersOutcome

Loaded = TypeVar("Loaded")
Applied = TypeVar("Applied")


class OwnReloads(Generic[Loaded, Applied]):
    """The interface of `SharedReloads` for a process that is its only worker."""

    def __init__(
        self,
        load: Callable[[], Awaitable[Loaded]],
        apply: Callable[[Loaded], Applied],
        provider_version: Callable[[], int],
    ) -> None:
        self._load = load
        self._apply = apply
        self._provider_version = provider_version
        self._lock = asyncio.Lock()
        self._id = str(uuid4())
        self._started_at = datetime.now(UTC)
        self.version = 0
        self.error: str | None = None

    async def start(self, seconds: float) -> None:
        """Do nothing: there are no other workers to follow."""

    async def reload(self) -> tuple[Applied, WorkersOutcome]:
        """Load the settings, then apply them. Raises what `load` raises."""
        async with self._lock:
            applied = self._apply(await self._load())
            self.version += 1
        return applied, WorkersOutcome()

    async def follow(self) -> WorkersOutcome:
        """Put settings in force that were changed elsewhere. Raises what `load` raises."""
        return (await self.reload())[1]

    async def workers(self) -> Sequence[Worker]:
        return [
            Worker(
                id=self._id,
                host=socket.gethostname(),
                pid=os.getpid(),
                started_at=self._started_at,
                last_seen=datetime.now(UTC),
                provider_version=self._provider_version(),
                config_version=self.version,
                error=None,
            )
        ]
