"""Wrong keys and tokens: counted for each address; if there are many, logged and answered slowly."""

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
"""The number of wrong keys from one address within `WINDOW` that is logged; further ones are delayed."""
WINDOW = 60.0
DELAY = 1.0
"""Seconds of delay of the response to a further wrong key. Valid keys are not delayed: others may share the address."""
ADDRESSES = 4096
"""The number of latest addresses that are remembered."""
WAITING = 256
"""Responses delayed at the same time: each costs memory, and delays do not slow a client that sends more."""


class Counted(Protocol):
    def wrong_key(self, kind: str, *, many: bool) -> None:
        """Count a wrong key; `many` says that its address has just reached `MANY`."""


class WrongKeys:
    """The counts of wrong keys by address. Fields that change: `_addresses` and `_waiting`, only in `note`."""

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
        self._addresses: OrderedDict[str, tuple[float, int]] = OrderedDict()  # start of the window, count
        self._waiting = 0

    async def note(self, scope: Mapping[str, Any], kind: str) -> None:
        """Count a request with a wrong key of this kind (`client` or `admin`). Returns when it may be answered."""
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
    """Return the client's address; for IPv6 the /64 network, since one client may use all its addresses."""
    host = (scope.get("client") or ("unknown",))[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "unknown"
    if address.version == 6 and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
    return str(address)
