"""The slot: a bridge with the pool's own state about it."""

from __future__ import annotations

import asyncio
import math
from contextvars import ContextVar
from typing import Any, Generic, TypeAlias, TypeVar

from pydantic import SecretStr

from ..principal import Principal
from .background import Timer
from .pooled import PooledBridge

LeasedT = TypeVar("LeasedT")

Key: TypeAlias = tuple[str, str]
BuildKey: TypeAlias = tuple[Key, SecretStr | None, int]
"""Identifies a build: the principal's key and session key, and the version of the providers."""


class Slot(Generic[LeasedT]):
    """One bridge from its factory to its close: starting, cached, retired, closing. Waiters count as leases."""

    __slots__ = (
        "awaited",
        "began",
        "bridge",
        "build_key",
        "closing",
        "expires_at",
        "leases",
        "number",
        "principal",
        "ready",
        "retired",
        "start",
        "timer",
    )

    def __init__(
        self, bridge: PooledBridge[LeasedT], principal: Principal, build_key: BuildKey, number: int, began: float
    ) -> None:
        self.bridge = bridge
        self.principal = principal
        self.build_key = build_key
        self.number = number  # a larger number means that the build began later
        self.began = began
        self.leases = 0
        self.retired = False
        self.closing = False
        self.expires_at = math.inf
        self.start: asyncio.Task[None] | None = None
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.awaited: list[Slot[Any]] = []  # builds that this build waits for
        self.timer: Timer | None = None  # the pending timeout: of the build, the drain or the close

    @property
    def key(self) -> Key:
        return self.build_key[0]

    @property
    def version(self) -> int:
        return self.build_key[2]

    def serves(self, principal: Principal) -> bool:
        """Whether a principal of the same key may use this bridge: only if its session key is the same, too."""
        return self.principal is principal or self.principal.has_session_of(principal)

    def settle(self, error: BaseException | None) -> bool:
        """Tell the waiters how the build ended. Only the first call counts; return whether this is the first."""
        if self.ready.done():
            return False
        if error is None:
            self.ready.set_result(None)
        else:
            self.ready.set_exception(error)
            self.ready.exception()  # marks it as retrieved, in case nobody waits
        return True

    def set_timer(self, timer: Timer | None) -> None:
        """Replace the pending timeout."""
        if self.timer is not None:
            self.timer.cancel()
        self.timer = timer

    def waits_for(self, other: Slot[Any]) -> bool:
        """Whether this build waits for the other one, directly or through further builds."""
        waiting: list[Slot[Any]] = [self]
        seen: set[Slot[Any]] = set()
        while waiting:
            slot = waiting.pop()
            if slot is other:
                return True
            if slot not in seen:
                seen.add(slot)
                waiting.extend(slot.awaited)
        return False


building: ContextVar[Slot[Any] | None] = ContextVar("aibridge_building", default=None)
"""The build that the running code belongs to, in any pool."""
