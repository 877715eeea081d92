"""Wrong keys and tokens: counted for each address, told when they become many, and answered slowly then."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

logger = logging.getLogger(__name__)

MANY = 10
"""Wrong keys from one address within `WINDOW` that are told and slowed."""
WINDOW = 60.0
DELAY = 1.0
"""Seconds by which the answer to a further wrong key is delayed. Right keys are not: others may share the address."""
ADDRESSES = 4096
"""Addresses that are remembered, the latest."""
WAITING = 256
"""Answers delayed at once: each costs memory, and a client that sends more is not slowed by delays."""


class Counted(Protocol):
    def wrong_key(self, kind: str, *, many: bool) -> None:
        """Count one; `many` says that the address has just reached `MANY`."""


class WrongKeys:
    """Who sends wrong keys. Fields that change: `_addresses` and `_waiting`, in `note` alone."""

    def __init__(
        self,
        metrics: Counted,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._metrics = metrics
        self._clock = clock
        self._sleep = sleep
        self._addresses: OrderedDict[str, tuple[float, int]] = OrderedDict()  # when the window began, and how many
        self._waiting = 0

    async def note(self, scope: Mapping[str, Any], kind: str) -> None:
        """One wrong key of this kind (`client` or `admin`) came with this request; returns when it may be answered."""
        address = _network(scope)
        number = self._count(address)
        self._metrics.wrong_key(kind, many=number == MANY)
        if number == MANY:
            logger.warning(
                "%d wrong %s keys or tokens from %s within a minute; further ones are answered slowly",
                MANY, kind, address,
            )  # fmt: skip
        if number > MANY and self._waiting < WAITING:
            self._waiting += 1
            try:
                await self._sleep(DELAY)
            finally:
                self._waiting -= 1

    def _count(self, address: str) -> int:
        now = self._clock()
        begun, number = self._addresses.pop(address, (now, 0))
        if now - begun >= WINDOW:
            begun, number = now, 0
        self._addresses[address] = (begun, number + 1)
        if len(self._addresses) > ADDRESSES:
            self._addresses.popitem(last=False)
        return number + 1


def _network(scope: Mapping[str, Any]) -> str:
    """The client's address; of IPv6 the network, as its owner has all the addresses in it."""
    host = (scope.get("client") or ("unknown",))[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "unknown"
    if address.version == 6 and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
    return str(address)
