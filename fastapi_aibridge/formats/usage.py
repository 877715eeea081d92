"""Token counts: converted from the providers' dialects, and added up over the rounds of one response.

There is one function for each dialect. OpenAI's has many variants: compatible providers put cached tokens and reasoning
in places of their own. Sources are named where a provider differs from OpenAI.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..principal import MAX_MODEL
from ..recorder.records import TokenUsage
from .lenient import count, counts, member, objects, text

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
_WRITTEN = (
    "cache_write_tokens",  # OpenRouter
    "cache_creation_input_tokens",  # DashScope, and gateways before Anthropic
    "cache_creation_tokens",  # LiteLLM
)
_MEMBERS = 64
"""Members kept of cumulative counts."""
_CACHE_CREATION = {"ephemeral_5m_input_tokens": "cache_creation_5m", "ephemeral_1h_input_tokens": "cache_creation_1h"}
_SERVER_TOOLS = {
    "web_search_requests": "web_search_requests",
    "web_fetch_requests": "web_fetch_requests",
    "code_execution_requests": "code_execution_requests",
}
_SERVER_CALLS = {
    "web_search_calls": "web_search_requests",
    "x_search_calls": "social_search_requests",
    "file_search_calls": "file_search_requests",
    "code_interpreter_calls": "code_execution_requests",
}
"""xAI's names (docs.x.ai/docs/guides/tools/overview)."""
_COUNTED = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
_PARTS = 256
"""Iterations of one message that are read."""
_MAX_TIER = 64
"""Characters of a service tier's name."""


def chat_usage(message_id: str, usage: dict[str, Any], *, partial: bool, service_tier: object = None) -> TokenUsage:
    """Convert the usage of Chat Completions and Completions; some servers name its members as in Responses."""
    return _openai(message_id, usage, _CHAT, service_tier, partial=partial)


def responses_usage(
    message_id: str, usage: dict[str, Any], *, partial: bool, service_tier: object = None
) -> TokenUsage:
    """Convert the usage of Responses; some servers name its members as in Chat Completions."""
    return _openai(message_id, usage, _RESPONSES, service_tier, partial=partial)


class _Names(NamedTuple):
    """The names of a dialect's counts, the usual name first."""

    start: tuple[str, str]
    end: tuple[str, str]
    start_details: tuple[str, str]
    end_details: tuple[str, str]


_CHAT = _Names(
    ("prompt_tokens", "input_tokens"),
    ("completion_tokens", "output_tokens"),
    ("prompt_tokens_details", "input_tokens_details"),
    ("completion_tokens_details", "output_tokens_details"),
)
_RESPONSES = _Names(*((second, first) for first, second in _CHAT))


def _openai(
    message_id: str, usage: dict[str, Any], names: _Names, service_tier: object, *, partial: bool
) -> TokenUsage:
    """Convert OpenAI's counts, where the input includes cached tokens, and the output reasoning."""
    details_in, details_out = _details(usage, names.start_details), _details(usage, names.end_details)
    read = count(details_in.get("cached_tokens")) or _first(usage, _CACHED)
    written = _first(details_in, _WRITTEN) or _first(usage, _WRITTEN)
    asked = _first(usage, names.start)
    said = _first(usage, names.end)
    extra: dict[str, int] = {}
    if details_out:
        extra |= counts(details_out, _DETAILS_OUT)
    if details_in:
        extra |= counts(details_in, _DETAILS_IN)
        extra |= counts(member(details_in, "cache_creation"), _CACHE_CREATION)
        if images := count(details_in.get("image_tokens")):
            extra["image_input"] = images
    for member_name, called in (("server_tool_use", _SERVER_TOOLS), ("server_side_tool_usage_details", _SERVER_CALLS)):
        if member_name in usage:  # OpenRouter, as Anthropic; xAI
            tools = counts(member(usage, member_name), called)
            extra |= {name: number for name, number in tools.items() if number}
    if "reasoning" not in extra and "reasoning_tokens" in usage:
        extra |= counts(usage, {"reasoning_tokens": "reasoning"})
    excess = count(usage.get("total_tokens")) - asked - said if asked else 0
    cached = read + written
    if asked < cached or (cached and cached == excess and not extra.get("reasoning")):
        # Gateways before Anthropic and Bedrock exclude cached tokens from the input, as those do.
        asked += cached
        excess -= cached
    if beside := _reasoning_beside(excess, extra.get("reasoning")):
        extra["reasoning"] = beside
    return TokenUsage(
        message_id=message_id,
        input_tokens=asked - cached,
        output_tokens=said + beside,
        cache_read_tokens=read,
        cache_write_tokens=written,
        extra=extra,
        partial=partial,
        service_tier=tier_of(service_tier),
    )


def tier_of(value: object) -> str | None:
    """Return the name of a service tier; None where there is none."""
    return value[:_MAX_TIER] if isinstance(value, str) and value else None


def _details(usage: Mapping[str, Any], names: tuple[str, str]) -> dict[str, Any]:
    """Return the details under the first of these names; some servers write `prompt_token_details`."""
    for name in names:
        if found := member(usage, name) or member(usage, name.replace("tokens_", "token_")):
            return found
    return {}


def _first(usage: Mapping[str, Any], names: tuple[str, ...]) -> int:
    """Return the first of these counts that is not zero."""
    for name in names:
        if name in usage and (number := count(usage[name])):
            return number
    return 0


def _reasoning_beside(excess: int, reasoning: int | None) -> int:
    """Return the reasoning tokens that are in the total but not in the output.

    xAI names their number (docs.x.ai/docs/guides/reasoning), Gemini's compatible API does not
    (ai.google.dev/gemini-api/docs/openai).
    """
    if excess <= 0:
        return 0
    if reasoning is None:
        return excess
    return reasoning if reasoning <= excess else 0


def messages_usage(message_id: str, usage: dict[str, Any], *, partial: bool) -> TokenUsage:
    """Convert the usage of Anthropic Messages.

    The counts at the top cover the message's own iterations; compactions and advisors are billed in addition
    (platform.claude.com/docs/en/build-with-claude/compaction).
    """
    if "input_tokens" not in usage and "prompt_tokens" in usage:
        return chat_usage(message_id, usage, partial=partial)
    all_counts = [usage, *(one for one in objects(usage.get("iterations")) if one.get("type") != "message")]
    extra: dict[str, int] = {}
    for one in all_counts:
        creation = counts(member(one, "cache_creation"), _CACHE_CREATION)
        extra |= {kind: extra.get(kind, 0) + tokens for kind, tokens in creation.items()}
    extra |= counts(member(usage, "server_tool_use"), _SERVER_TOOLS)
    extra |= counts(member(usage, "output_tokens_details"), {"thinking_tokens": "reasoning"})

    def summed(name: str) -> int:
        return sum(count(one.get(name)) for one in all_counts)

    # Some servers name the kinds of cache writes only.
    written = summed("cache_creation_input_tokens") or sum(extra.get(kind, 0) for kind in _CACHE_CREATION.values())

    return TokenUsage(
        message_id=message_id,
        input_tokens=summed("input_tokens"),
        output_tokens=summed("output_tokens"),
        cache_read_tokens=summed("cache_read_input_tokens"),
        cache_write_tokens=written,
        extra=extra,
        partial=partial,
        service_tier=_messages_tier(usage),
    )


def _messages_tier(usage: Mapping[str, Any]) -> str | None:
    """Return the service tier.

    Fast mode is no tier, but has its own prices and takes precedence
    (platform.claude.com/docs/en/build-with-claude/fast-mode).
    """
    return "fast" if usage.get("speed") == "fast" else tier_of(usage.get("service_tier"))


def messages_parts(usage: dict[str, Any]) -> list[tuple[str, TokenUsage]]:
    """Return the model calls that make up a message, each with its model if known; empty where there is only one.

    An advisor is another model than the requested one, and long-context prices depend on the prompt of each call.
    """
    iterations = objects(usage.get("iterations"))[:_PARTS]
    own = [one for one in iterations if one.get("type") == "message"]
    beside = [one for one in iterations if one.get("type") != "message"]
    if not beside and len(own) < 2:
        return []
    if any(sum(count(one.get(name)) for one in own) != count(usage.get(name)) for name in _COUNTED):
        own = [usage]  # the counts at the top prevail
    parts = []
    for one in (*own, *beside):
        part = messages_usage("", {**one, "iterations": None}, partial=False)
        part.service_tier = _messages_tier(usage)
        parts.append((text(one.get("model"))[:MAX_MODEL], part))
    first = parts[0][1]
    first.extra = {**first.extra, **counts(member(usage, "server_tool_use"), _SERVER_TOOLS)}
    return parts


def gone_on(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Return cumulative counts updated by later ones.

    A zero changes nothing: SGLang sends zeros for counts that it reported at the start (sgl-project/sglang#20830).
    """
    after = dict(before)
    for name, value in now.items():
        known = after.get(name)
        if isinstance(value, dict) and isinstance(known, dict):
            after[name] = gone_on(known, value)
        elif (value or not known) and (name in after or len(after) < _MEMBERS):
            after[name] = value
    return after


def total(usages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up usage objects.

    Numbers are summed, objects added member by member, lists concatenated; of anything else the last value holds.
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
