"""What remains of a record where content is not to be kept: who called what, how often and how long, but no text."""

from __future__ import annotations

from dataclasses import replace

from .records import Ending, Facts


def facts_without_content(facts: Facts) -> Facts:
    """Tokens stay, and which tools were called; prompts and thoughts go. A tool's failure stays as an empty text."""
    return Facts(
        token_usages=facts.token_usages,
        tool_usages=[
            replace(usage, arguments=None, error=None if usage.error is None else "") for usage in facts.tool_usages
        ],
        objects=facts.objects,
    )


def ending_without_content(ending: Ending) -> Ending:
    return ending if ending.error is None else replace(ending, error=None)
