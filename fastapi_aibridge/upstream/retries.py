"""Retries as in the vendors' SDKs, with more jitter: whether to make another attempt, and after how long."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from email.utils import mktime_tz, parsedate_tz
from math import isfinite

RETRY_WINDOW = 30.0
"""Seconds after the start of the first attempt within which another may start."""

_FIRST_DELAY, _LONGEST_DELAY = 0.5, 8.0
"""Seconds, as in the SDKs. Unlike theirs, the jitter is a full one: many callers fail at the same time here."""
_SPREAD = 0.25
"""Fraction of a `Retry-After` that is added at random, a second at most, so that callers do not return all at once."""


def is_retryable(status: int, headers: Mapping[str, str]) -> bool:
    """Whether the vendors' SDKs would retry. The provider's `x-should-retry` takes precedence."""
    word = headers.get("x-should-retry")
    if word in ("true", "false"):
        return word == "true"
    return status in (408, 409, 429) or status >= 500


def retry_after(headers: Mapping[str, str], now: Callable[[], float] = time.time) -> float | None:
    """Return the seconds that `Retry-After-Ms` or either form of `Retry-After` asks for; None where neither does."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) * unit
        except (KeyError, ValueError):
            continue
        if isfinite(seconds) and seconds >= 0:
            return seconds
    date = parsedate_tz(headers.get("retry-after", ""))
    try:
        return max(0.0, mktime_tz(date) - now()) if date else None
    except (ValueError, OverflowError):
        return None


def delay(retries: int, asked: float | None, chance: Callable[[], float] = random.random) -> float:
    """Return the seconds to wait after `retries` retries; `asked` is the time that the provider asks for, if any."""
    if asked is not None:
        return asked + chance() * min(1.0, asked * _SPREAD)
    return chance() * min(_LONGEST_DELAY, _FIRST_DELAY * 2.0**retries)
