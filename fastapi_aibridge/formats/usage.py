"""Token counts: as providers report them, as they are recorded, and as the rounds of one response add up.

One function for each dialect. OpenAI's has many: compatible providers have found their own places for cached tokens and
reasoning. Sources are named where a provider does otherwise than OpenAI.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..recorder.records import TokenUsage
from .lenient import count, counts, member, objects

_DETAILS_OUT = {
    "reasoning_tokens": "reasoning",
    "audio_tokens": "audio_output",
    "image_tokens": "image_output",
    "accepted_prediction_tokens": "accepted_prediction",
    "rejected_prediction_tokens": "rejected_prediction",
}
_DETAILS_IN = {"audio_tokens": "audio_input"}
_CACHED = (
    "cached_tokens",  # Kimi: platform.moonshot.ai/docs/api/chat
    "prompt_cache_hit_tokens",  # DeepSeek: api-docs.deepseek.com/guides/kv_cache
    "num_cached_tokens",  # Mistral
    "cache_read_input_tokens",  # gateways before Anthropic
)
_CACHE_CREATION = {"ephemeral_5m_input_tokens": "cache_creation_5m", "ephemeral_1h_input_tokens": "cache_creation_1h"}
_SERVER_TOOLS = {"web_search_requests": "web_search_requests", "web_fetch_requests": "web_fetch_requests"}


def chat_usage(message_id: str, usage: dict[str, Any], *, partial: bool) -> TokenUsage:
    """Of Chat Completions and Completions, whose members some call as Responses does."""
    if "prompt_tokens" not in usage and "input_tokens" in usage:
        return responses_usage(message_id, usage, partial=partial)
    return _openai(message_id, usage, "prompt", "completion", partial=partial)


def responses_usage(message_id: str, usage: dict[str, Any], *, partial: bool) -> TokenUsage:
    """Of Responses."""
    return _openai(message_id, usage, "input", "output", partial=partial)


def _openai(message_id: str, usage: dict[str, Any], start: str, end: str, *, partial: bool) -> TokenUsage:
    """OpenAI counts cached tokens into the input, and reasoning into the output."""
    details_in, details_out = member(usage, f"{start}_tokens_details"), member(usage, f"{end}_tokens_details")
    read = count(details_in.get("cached_tokens")) or next((n for name in _CACHED if (n := count(usage.get(name)))), 0)
    written = count(details_in.get("cache_write_tokens")) or count(usage.get("cache_creation_input_tokens"))
    asked, said = count(usage.get(f"{start}_tokens")), count(usage.get(f"{end}_tokens"))
    extra = counts(details_out, _DETAILS_OUT) | counts(details_in, _DETAILS_IN)
    excess = count(usage.get("total_tokens")) - asked - said if asked else 0
    if beside := _reasoning_beside(excess, extra.get("reasoning")):
        extra["reasoning"] = beside
    return TokenUsage(
        message_id=message_id,
        input_tokens=max(0, asked - read - written),
        output_tokens=said + beside,
        cache_read_tokens=read,
        cache_write_tokens=written,
        extra=extra,
        partial=partial,
    )


def _reasoning_beside(excess: int, reasoning: int | None) -> int:
    """Reasoning that is in the total and not in the output: xAI names it (docs.x.ai/docs/guides/reasoning), Gemini's
    compatible API does not (ai.google.dev/gemini-api/docs/openai).
    """
    if excess <= 0:
        return 0
    if reasoning is None:
        return excess
    return reasoning if reasoning <= excess else 0


def messages_usage(message_id: str, usage: dict[str, Any], *, partial: bool) -> TokenUsage:
    """Of Anthropic Messages. The counts at the top are those of the message's own iterations; compactions and advisors
    are billed beside them (platform.claude.com/docs/en/build-with-claude/compaction).
    """
    all_counts = [usage, *(one for one in objects(usage.get("iterations")) if one.get("type") != "message")]
    extra: dict[str, int] = {}
    for one in all_counts:
        creation = counts(member(one, "cache_creation"), _CACHE_CREATION)
        extra |= {kind: extra.get(kind, 0) + tokens for kind, tokens in creation.items()}
    extra |= counts(member(usage, "server_tool_use"), _SERVER_TOOLS)
    extra |= counts(member(usage, "output_tokens_details"), {"thinking_tokens": "reasoning"})

    def summed(name: str) -> int:
        return sum(count(one.get(name)) for one in all_counts)

    return TokenUsage(
        message_id=message_id,
        input_tokens=summed("input_tokens"),
        output_tokens=summed("output_tokens"),
        cache_read_tokens=summed("cache_read_input_tokens"),
        cache_write_tokens=summed("cache_creation_input_tokens"),
        extra=extra,
        partial=partial,
    )


def gone_on(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Cumulative counts (`message_delta`'s) after those before. A zero says nothing: SGLang sends some for what it told
    at the start (sgl-project/sglang#20830).
    """
    after = dict(before)
    for name, value in now.items():
        known = after.get(name)
        if isinstance(value, dict) and isinstance(known, dict):
            after[name] = gone_on(known, value)
        elif value or not known:
            after[name] = value
    return after


def total(usages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Usage objects added up: numbers are summed, objects member by member, lists one behind the other, of anything
    else the last one holds.
    """
    summed: dict[str, Any] = {}
    for usage in usages:
        for key, value in usage.items():
            before = summed.get(key)
            if isinstance(value, Mapping):
                summed[key] = total([before if isinstance(before, Mapping) else {}, value])
            elif isinstance(value, int | float) and not isinstance(value, bool):
                summed[key] = value + (before if isinstance(before, int | float) else 0)
            elif isinstance(value, list) and isinstance(before, list):
                summed[key] = [*before, *value]
            elif value is not None or key not in summed:
                summed[key] = value
    return summed
