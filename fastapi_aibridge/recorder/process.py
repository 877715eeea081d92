"""Identity of a process, so that another process can tell whether it is still alive."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process among those that share a database. `started` distinguishes it from a later one with the same pid."""

    host: str
    """Host name, boot id and pid namespace: two containers on one machine differ."""
    pid: int
    started: str

    @classmethod
    def current(cls) -> ProcessIdentity:
        return cls(_host(), os.getpid(), _started(os.getpid()) or "")

    def is_gone(self, here: ProcessIdentity) -> bool:
        """Return whether the process `here` can tell that this one has ended; False if it cannot tell."""
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
    """Return the process's start time in the kernel's ticks; None if it is gone, or without /proc."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *rest = stat.rpartition(")")[2].split()
    return None if state in {"Z", "X"} else rest[18]
