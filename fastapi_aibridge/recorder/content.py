"""Removal of content from records: callers, models, tools, counts and times stay, texts go."""

from __future__ import annotations

from dataclasses import replace

from .records import Ending, Facts


def facts_without_content(facts: Facts) -> Facts:
    """Return the facts without prompts, thoughts and tool arguments. A tool's error becomes an empty text."""
    return Facts(
        token_usages=facts.token_usages,
        tool_usages=[
            replace(usage, arguments=None, error=None if usage.error is None else "") for usage in facts.tool_usages
        ],
        objects=facts.objects,
    )


def ending_without_content(ending: Ending) -> Ending:
    return ending if ending.error is None else replace(ending, error=None)
