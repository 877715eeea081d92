"""The protocols that the pool needs: a bridge, and a limit on the requests that wait for one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from ..principal import Principal

LeasedT_co = TypeVar("LeasedT_co", covariant=True)


class PooledBridge(Protocol[LeasedT_co]):
    """A bridge, shared by all requests of one principal. `start()` and `aclose()` run in different tasks."""

    @property
    def degraded(self) -> bool:
        """Whether a part is missing that may come back; such a bridge is cached for `degraded_ttl` only."""
        ...

    def seen_by(self, principal: Principal) -> LeasedT_co:
        """Return the object for one lease. The principal has the key and session key that the bridge was built for."""
        ...

    async def start(self) -> None:
        """Connect. An error is raised to all who wait for the bridge."""
        ...

    def retire(self) -> None:
        """Note that no new leases follow; those that are held go on. Called once at most."""
        ...

    def cut(self, error: Callable[[], Exception]) -> None:
        """End the running requests with the error, and refuse new ones with it."""
        ...

    async def aclose(self) -> None:
        """End the running requests and release all resources. Called exactly once, even if `start()` failed, was
        cancelled or never ran.
        """
        ...


class WaitingRoom(Protocol):
    """Limits how many requests wait for a bridge at once."""

    async def enter(self, initiator: str) -> None:
        """Raise if there is no room. Otherwise the pool calls `leave` later."""
        ...

    def leave(self, initiator: str) -> None: ...
