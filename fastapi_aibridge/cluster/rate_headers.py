"""Response headers that tell a client what its limits have left, in the format of the vendor whose API it uses."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

from .limit_rules import Counters, Kind
from .process_limits import Verdict

_PARTS = ("limit", "remaining", "reset")


def rate_headers(provider_type: str, counters: Counters, verdict: Verdict) -> dict[str, str]:
    """Return the strictest limits of requests and of tokens as headers, names in lower case; empty without limits."""
    headers: dict[str, str] = {}
    names = _NAMES["anthropic" if provider_type == "anthropic" else "openai"]
    for kind, places in counters.windows:
        left, limit, reset = min([(verdict.left[place][0], limit, verdict.left[place][1]) for place, limit in places])
        name_of_limit, name_of_left, name_of_reset = names[kind]
        headers[name_of_limit] = str(limit)
        headers[name_of_left] = str(left)
        headers[name_of_reset] = _moment(reset) if provider_type == "anthropic" else _duration(reset)
    return headers


_NAMES = {
    "anthropic": {kind: [f"anthropic-ratelimit-{kind.name.lower()}-{part}" for part in _PARTS] for kind in Kind},
    "openai": {kind: [f"x-ratelimit-{part}-{kind.name.lower()}" for part in _PARTS] for kind in Kind},
}


def _moment(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=math.ceil(seconds))).strftime("%Y-%m-%dT%H:%M:%SZ")


def _duration(seconds: float) -> str:
    """A duration in OpenAI's format: `20ms`, `1s`, `6m0s`, `1h0m30s`."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{rest}s"
