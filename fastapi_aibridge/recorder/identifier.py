"""Generation of interception ids."""

from __future__ import annotations

import random
import time

_RAND_B = (1 << 62) - 1


def new_id() -> str:
    """Return a UUID of version 7 (RFC 9562, section 5.7). It begins with the time, so indexes grow at their end.

    Ids are not secret, so ordinary random numbers suffice; Python reseeds `random` in forked processes.
    """
    bits = random.getrandbits(74)
    value = (time.time_ns() // 1_000_000) << 80 | 7 << 76 | (bits >> 62) << 64 | 2 << 62 | bits & _RAND_B
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
