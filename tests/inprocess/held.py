"""A bridge whose upstream the test controls byte by byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi_aibridge import AIBridge, Ending, Facts, MemoryRecorder, Principal, RequestBridge

from ..e2e.gateway.gateway import settings_for
from ..e2e.gateway.upstream import Upstream

LIMIT = 60.0


class Ends(MemoryRecorder):
    """A recorder that passes on the endings of interceptions."""

    def __init__(self) -> None:
        super().__init__(max_items=10_000)
        self._told: asyncio.Queue[Ending] = asyncio.Queue()

    async def end(self, interception_id: str, ending: Ending, facts: Facts) -> None:
        await super().end(interception_id, ending, facts)
        self._told.put_nowait(ending)

    async def next(self) -> Ending:
        return await asyncio.wait_for(self._told.get(), LIMIT)


@dataclass(frozen=True, slots=True)
class Held:
    aibridge: AIBridge
    bridge: RequestBridge
    upstream: Upstream
    ends: Ends


@asynccontextmanager
async def held_bridge(**settings: Any) -> AsyncIterator[Held]:
    async with Upstream() as upstream:
        ends = Ends()
        aibridge = AIBridge(settings_for(upstream.url, **settings), recorder=ends)
        async with aibridge.bridge(Principal("alice")) as bridge:
            yield Held(aibridge, bridge, upstream, ends)
