"""Name resolution and connected sockets: addresses follow changes of the DNS, and are raced as in RFC 8305."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import chain, zip_longest
from typing import NamedTuple

KEPT_FOR = 30.0
"""Seconds that the addresses of a name are used before it is looked up again."""
MAX_NAMES = 256
ATTEMPT_DELAY = 0.25
"""Seconds that one address is tried alone before the next one is tried beside it (RFC 8305, section 5)."""
KEEPALIVE_AFTER = 60
"""Seconds of silence after which the kernel probes the upstream, which also keeps a NAT on the way open."""


class Address(NamedTuple):
    family: socket.AddressFamily
    sockaddr: tuple[str, int] | tuple[str, int, int, int]


class Resolver:
    """Looks names up, with one look-up for each name at a time, and caches their addresses for a while."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: OrderedDict[tuple[str, int], tuple[float, list[Address]]] = OrderedDict()
        self._asking: dict[tuple[str, int], asyncio.Task[list[Address]]] = {}

    async def addresses(self, host: str, port: int) -> list[Address]:
        """Return at least one address. Raises `socket.gaierror`."""
        literal = _literal(host, port)
        if literal is not None:
            return [literal]
        key = (host, port)
        known = self._known.get(key)
        if known is not None and self._clock() < known[0]:
            return known[1]
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.ensure_future(self._look_up(host, port))
            task.add_done_callback(_seen)
        return await asyncio.shield(task)  # others may wait for it, too

    def forget(self, host: str, port: int) -> None:
        self._known.pop((host, port), None)

    async def _look_up(self, host: str, port: int) -> list[Address]:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
            addresses = _interleaved(Address(socket.AddressFamily(one[0]), one[4]) for one in found)  # type: ignore[arg-type]
            if not addresses:
                raise socket.gaierror(socket.EAI_NONAME, "no addresses")
            self._known[host, port] = (self._clock() + KEPT_FOR, addresses)
            self._known.move_to_end((host, port))
            if len(self._known) > MAX_NAMES:
                self._known.popitem(last=False)
            return addresses
        finally:
            self._asking.pop((host, port), None)


def _seen(task: asyncio.Task[list[Address]]) -> None:
    """Retrieve the exception of a failed look-up: perhaps nobody waits for it any more."""
    if not task.cancelled():
        task.exception()


def _literal(host: str, port: int) -> Address | None:
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return None
    return Address(socket.AF_INET, (host, port)) if version == 4 else Address(socket.AF_INET6, (host, port, 0, 0))


def _interleaved(addresses: Iterable[Address]) -> list[Address]:
    """Alternate the address families, each in the resolver's order (RFC 8305, section 4)."""
    families: dict[int, list[Address]] = {}
    for address in dict.fromkeys(addresses):
        families.setdefault(address.family, []).append(address)
    return [one for one in chain.from_iterable(zip_longest(*families.values())) if one is not None]


async def connected_socket(addresses: Sequence[Address]) -> socket.socket:
    """Return a socket connected to the first of the addresses that accepts. Raises `OSError`, the first address's."""
    if len(addresses) == 1:
        return await _connect(addresses[0])
    left = list(addresses)
    running: dict[asyncio.Task[socket.socket], Address] = {}
    problems: dict[Address, BaseException] = {}
    try:
        while True:
            if left:
                address = left.pop(0)
                running[asyncio.ensure_future(_connect(address))] = address
            elif not running:
                raise problems[addresses[0]]
            done, _ = await asyncio.wait(
                running, timeout=ATTEMPT_DELAY if left else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                problem = task.exception()
                if problem is None:
                    del running[task]
                    return task.result()
                problems[running.pop(task)] = problem
    finally:
        problems.clear()  # exceptions refer to this frame
        _give_up(running)


def _give_up(tasks: Iterable[asyncio.Task[socket.socket]]) -> None:
    for task in tasks:
        task.cancel()
        task.add_done_callback(_close)


def _close(task: asyncio.Task[socket.socket]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()


async def _connect(address: Address) -> socket.socket:
    connection = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        with suppress(AttributeError, OSError):  # not every system has it
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_AFTER)
        await asyncio.get_running_loop().sock_connect(connection, address.sockaddr)
    except BaseException:
        connection.close()
        raise
    return connection
