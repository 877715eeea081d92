"""Which process this is, so that another one can tell whether it still lives."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process among all that share a database. `started` tells it from a later one that got the same pid."""

    host: str
    """The machine, its boot and its namespace of pids: two containers of one machine differ."""
    pid: int
    started: str

    @classmethod
    def current(cls) -> ProcessIdentity:
        return cls(_host(), os.getpid(), _started(os.getpid()) or "")

    def is_gone(self, here: ProcessIdentity) -> bool:
        """Whether it can be told from `here` that the process has ended; False where that cannot be seen."""
        if self.host != here.host or os.name != "posix":
            return False
        if here.started:
            return _started(self.pid) != self.started
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False


def _host() -> str:
    parts = [socket.gethostname()]
    for read in (_boot, _pid_namespace):
        try:
            parts.append(read())
        except OSError:
            parts.append("")
    return "/".join(parts)


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _pid_namespace() -> str:
    return str(Path("/proc/self/ns/pid").stat().st_ino)


def _started(pid: int) -> str | None:
    """When the process started, in the kernel's ticks; None for one that is gone, or where there is no /proc."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *rest = stat.rpartition(")")[2].split()
    return None if state in {"Z", "X"} else rest[18]
