"""Limits the bytes of request bodies and whole responses that one process holds, in all and for each initiator."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import GatewayError
from ..formats.large_text import BodyText

_FALLBACK = 2 * 1024**3
"""Bytes of memory that are assumed if the system does not tell."""


class BodyBudget:
    """The bytes of bodies that may be held at once, shared between initiators.

    An initiator may hold as much as remains free: half of all if it is alone, a third each if there are two, so that
    some bytes are always free for the next one.
    """

    def __init__(self, capacity: int | None = None) -> None:
        self._held: dict[str, int] = {}  # bytes of each initiator that holds some
        self.used = 0
        self.apply(capacity)

    def apply(self, capacity: int | None) -> None:
        """Set the capacity in bytes; None for a quarter of the memory that the process may use."""
        self.capacity = usable_memory() // 4 if capacity is None else capacity

    def holding(self, initiator: str) -> Holding:
        """Make the holding of one request of this initiator. The caller must `release` it."""
        return Holding(self, initiator)

    def has_room(self, initiator: str, size: int) -> bool:
        return self._held.get(initiator, 0) + size <= self.capacity - self.used - size

    def take(self, initiator: str, size: int) -> None:
        self.used += size
        if held := self._held.get(initiator, 0) + size:
            self._held[initiator] = held
        else:
            self._held.pop(initiator, None)


class Holding:
    """The bytes that one request holds: `size` of its bodies, `answer` of the upstream's response."""

    __slots__ = ("_budget", "_initiator", "answer", "size")

    def __init__(self, budget: BodyBudget, initiator: str) -> None:
        self._budget = budget
        self._initiator = initiator
        self.size = 0
        self.answer = 0

    @property
    def limit(self) -> int:
        """Bytes of the largest body that could be held if there were no other."""
        return self._budget.capacity // 2

    def check(self, size: int) -> None:
        """Raise `GatewayError` 503 if there is no room for so many more bytes."""
        if not self._budget.has_room(self._initiator, size):
            raise GatewayError(
                503,
                "out_of_memory",
                "the gateway holds as many bytes of your requests and their answers as it can; try again",
                headers={"retry-after": "1", "connection": "close"},
            )

    def grow(self, size: int) -> None:
        """Hold so many more bytes. Raises `GatewayError` 503 if there is no room for them."""
        self.check(size)
        self._budget.take(self._initiator, size)
        self.size += size

    def shrink(self, size: int) -> None:
        self._budget.take(self._initiator, -size)
        self.size -= size

    def hold(self, *bodies: BodyText) -> None:
        """Hold exactly these bodies; the same object counts once. Raises `GatewayError` 503."""
        size = sum({id(body): len(body) for body in bodies}.values())
        if size > self.size:
            self.grow(size - self.size)
        else:
            self.shrink(self.size - size)

    def hold_answer(self, size: int) -> None:
        """Hold so many bytes of the upstream's response, in place of those before. Raises `GatewayError` 503."""
        more = size - self.answer
        if more > 0:
            self.check(more)
        self._budget.take(self._initiator, more)
        self.answer = size

    def release(self) -> None:
        """Give all bytes back, because the bodies are gone."""
        self.shrink(self.size)
        if self.answer:
            self.hold_answer(0)


def usable_memory(root: Path = Path("/")) -> int:
    """Return the bytes of memory that this process may use: the machine's, or the least that its cgroups allow."""
    limits = [_machine(root), *_control_groups(root)]
    return min((limit for limit in limits if limit > 0), default=_FALLBACK)


def _machine(root: Path) -> int:
    if root == Path("/"):
        try:
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (ValueError, OSError):
            return 0
    for line in _read(root / "proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0


def _control_groups(root: Path) -> list[int]:
    """Return the memory limits, in bytes, of the process's cgroups (version 1 and 2) and of those above them."""
    found: list[int] = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and "memory" not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        name = "memory.limit_in_bytes" if controllers else "memory.max"
        group = Path(path.strip("/"))
        # Within a container the path may be that of the host, and the container's own group the root.
        for place in (group, *group.parents):
            limit = _read(base / place / name).strip()
            if limit.isdigit() and int(limit) < 2**60:
                found.append(int(limit))
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
