"""What is recorded of tool calls, without the secrets that a provider or a tool may have repeated."""

from __future__ import annotations

from ..masking import Masker
from ..recorder import Facts


def mask_facts(facts: Facts, masker: Masker) -> None:
    """Mask, in place, what the provider wrote: arguments of tool calls, and errors."""
    for usage in facts.tool_usages:
        usage.arguments = masker.json(usage.arguments)
        if usage.error:
            usage.error = masker.text(usage.error)
