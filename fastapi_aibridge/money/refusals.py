"""The errors of requests that a budget refuses."""

from __future__ import annotations

from ..budget import dollars
from ..errors import GatewayError
from .budget_book import Limit
from .open_counters import OpenCounter

_FINAL = {"x-should-retry": "false"}
"""The header that stops the vendors' SDKs, Claude Code and Codex from retrying."""


def over_budget(counter: OpenCounter, limit: Limit, estimate: int) -> GatewayError:
    """Return the 429 error. Clients see the vendor's own type: `insufficient_quota` of OpenAI, `billing_error` of
    Anthropic.
    """
    key = counter.key
    of = (
        f"of group {key.id!r} "
        if key.scope == "group"
        else "of everybody together "
        if key.scope != "initiator"
        else ""
    )
    resets = f"it resets at {limit.resets_at:%Y-%m-%d %H:%M} UTC"
    if limit.amount <= 0:
        message = f"the budget {of}for this {key.period} is 0, so no request is allowed"
    else:
        left = limit.amount - counter.counted.spent - counter.counted.reserved
        if left > 0 and key.scope == "initiator":
            message = (
                f"this request may cost up to USD {dollars(estimate)}, and USD {dollars(left)} are left of the budget "
                f"of USD {dollars(limit.amount)} for this {key.period}; {resets}"
            )
        elif left > 0:
            message = f"this request may cost more than is left of the budget {of}for this {key.period}; {resets}"
        else:
            amount = f" of USD {dollars(limit.amount)}" if key.scope == "initiator" else ""
            message = f"the budget{amount} {of}for this {key.period} is used up; {resets}"
    return GatewayError(429, "insufficient_quota", message, headers=dict(_FINAL))


def not_priced(model: str) -> GatewayError:
    return GatewayError(
        403,
        "model_not_priced",
        f"model {model[:256]!r} has no price, so no budget can hold for it, and AIBRIDGE_UNPRICED is 'refuse'",
        headers=dict(_FINAL),
    )


def unavailable() -> GatewayError:
    return GatewayError(
        503, "budget_unavailable", "the gateway cannot read budgets now; try again", headers={"retry-after": "5"}
    )
