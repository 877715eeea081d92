"""How responses tell a client what its limits have left, each in the form of the vendor whose API it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from .limit_rules import Counter, Kind
from .process_limits import Verdict

_KINDS = ((Kind.REQUESTS, "requests"), (Kind.TOKENS, "tokens"))


def rate_headers(provider_type: str, counters: Sequence[Counter], verdict: Verdict) -> dict[str, str]:
    """What the strictest counters of requests and of tokens have left; names in lower case. Empty without such."""
    headers: dict[str, str] = {}
    for kind, name in _KINDS:
        found = [
            (left, counter.limit, reset)
            for counter, (left, reset) in zip(counters, verdict.left, strict=True)
            if counter.kind is kind
        ]
        if not found:
            continue
        left, limit, reset = min(found)
        if provider_type == "anthropic":
            begin, end = f"anthropic-ratelimit-{name}-", ""
            at = datetime.now(UTC) + timedelta(seconds=math.ceil(reset))
            told = at.strftime("%Y-%m-%dT%H:%M:%SZ")
        else:
            begin, end = "x-ratelimit-", f"-{name}"
            told = _duration(reset)
        headers[f"{begin}limit{end}"] = str(limit)
        headers[f"{begin}remaining{end}"] = str(left)
        headers[f"{begin}reset{end}"] = told
    return headers


def _duration(seconds: float) -> str:
    """As OpenAI writes it: `20ms`, `1s`, `6m0s`, `1h0m30s`."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{rest}s"
