"""Masks secrets in recorded tool calls, because a provider or a tool may have repeated them."""

from __future__ import annotations

from ..masking import Masker
from ..recorder import Facts


def mask_facts(facts: Facts, masker: Masker) -> None:
    """Mask the arguments and errors of tool calls in place."""
    for usage in facts.tool_usages:
        usage.arguments = masker.json(usage.arguments)
        if usage.error:
            usage.error = masker.text(usage.error)
