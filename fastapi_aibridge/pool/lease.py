"""Leases of bridges."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from ..principal import Principal
from .slot import Slot

LeasedT = TypeVar("LeasedT")


class Lease(Generic[LeasedT]):
    """The right to use a principal's bridge: `async with` acquires the bridge and releases it at the end.

    Entering raises `PoolShutdown`, `BuildTimeout`, `GatewayError` if too many requests wait for a bridge,
    `ConfigurationError` within the build of the same bridge, and whatever the bridge's factory or `start()` raises.
    """

    __slots__ = ("_cached", "_enter", "_leave", "_principal", "_slot")

    def __init__(
        self,
        principal: Principal,
        cached: Callable[[Principal], Slot[LeasedT] | None],
        enter: Callable[[Principal], Coroutine[Any, Any, Slot[LeasedT]]],
        leave: Callable[[Slot[LeasedT]], None],
    ) -> None:
        self._principal = principal
        self._cached = cached
        self._enter = enter
        self._leave = leave
        self._slot: Slot[LeasedT] | None = None

    async def __aenter__(self) -> LeasedT:
        if self._slot is not None:
            raise RuntimeError("This lease is held already; call acquire() for another one")
        slot = self._cached(self._principal) or await self._enter(self._principal)
        self._slot = slot
        return slot.bridge.seen_by(self._principal)

    async def __aexit__(self, *exc_info: object) -> None:
        self.release()

    def release(self) -> None:
        """Release the bridge; further calls do nothing."""
        slot, self._slot = self._slot, None
        if slot is not None:
            self._leave(slot)
