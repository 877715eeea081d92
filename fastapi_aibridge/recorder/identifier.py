"""Ids of interceptions."""

from __future__ import annotations

import os
import time
from uuid import UUID


def new_id() -> str:
    """A UUID of version 7 (RFC 9562, section 5.7): it begins with the time, so that indexes grow at their end."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10))
    value = milliseconds << 80 | 7 << 76 | (random >> 62 & 0xFFF) << 64 | 2 << 62 | random & 0x3FFF_FFFF_FFFF_FFFF
    return str(UUID(int=value))
