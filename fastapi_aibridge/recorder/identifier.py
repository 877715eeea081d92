"""Ids of interceptions."""

from __future__ import annotations

import random
import time

_RAND_B = (1 << 62) - 1


def new_id() -> str:
    """A UUID of version 7 (RFC 9562, section 5.7): it begins with the time, so that indexes grow at their end.

    It is no secret, so that ordinary random numbers will do; `random` is seeded anew in each process.
    """
    bits = random.getrandbits(74)
    value = (time.time_ns() // 1_000_000) << 80 | 7 << 76 | (bits >> 62) << 64 | 2 << 62 | bits & _RAND_B
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
