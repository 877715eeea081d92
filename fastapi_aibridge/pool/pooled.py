"""What the pool needs of a bridge, and of whoever counts the requests that wait for one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from ..principal import Principal

LeasedT_co = TypeVar("LeasedT_co", covariant=True)


class PooledBridge(Protocol[LeasedT_co]):
    """What all requests of one principal share. `start()` and `aclose()` run in different tasks."""

    @property
    def degraded(self) -> bool:
        """Whether something is missing that may come back: such a bridge is cached for `degraded_ttl` only."""
        ...

    def seen_by(self, principal: Principal) -> LeasedT_co:
        """The bridge for one lease, whose principal has the key and the session key that it was built for."""
        ...

    async def start(self) -> None:
        """Connect. An error here reaches everybody who waits for the bridge."""
        ...

    def retire(self) -> None:
        """No new leases are given out from now on; those that are out may go on. Called once at most."""
        ...

    def cut(self, error: Callable[[], Exception]) -> None:
        """End what runs, with the error, and let nothing begin any more."""
        ...

    async def aclose(self) -> None:
        """Let go of everything, also if `start()` failed, was cancelled or never ran; cut what still runs.

        Called exactly once.
        """
        ...


class WaitingRoom(Protocol):
    """Bounds how many requests wait for a bridge at once."""

    async def enter(self, initiator: str) -> None:
        """Raises where there is no room; otherwise `leave` follows."""
        ...

    def leave(self, initiator: str) -> None: ...
