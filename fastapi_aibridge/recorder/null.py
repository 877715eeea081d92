"""A recorder that stores nothing."""

from __future__ import annotations

from .records import Ending, Facts, Interception


class NullRecorder:
    async def start(self, interception: Interception) -> None:
        pass

    async def observe(self, interception_id: str, facts: Facts) -> None:
        pass

    async def end(self, interception_id: str, ending: Ending, facts: Facts) -> None:
        pass
