"""Usage as twelve providers report it, and as it was billed.

The members are those of the providers' public documentation; the numbers are its examples where it has some. Read in
November 2026:

OpenAI, Azure      platform.openai.com/docs/api-reference/chat/object, .../guides/prompt-caching
Anthropic          platform.claude.com/docs/en/api/messages, .../build-with-claude/compaction
Gemini             ai.google.dev/gemini-api/docs/openai; openai/openai-python#2544 shows an answer with cached tokens
DeepSeek           api-docs.deepseek.com/api/create-chat-completion, .../guides/kv_cache
Kimi               platform.moonshot.ai/docs/api/chat
xAI                docs.x.ai/developers/advanced-api-usage/prompt-caching/usage-and-pricing; that reasoning is beside
                   the completion was reported for grok-3-mini, newer models count it in: the total tells
Mistral            docs.mistral.ai/studio-api/conversations/advanced/prompt-caching, docs.mistral.ai/api (UsageInfo)
Groq               console.groq.com/docs/prompt-caching; vercel/ai#17118 checked it against the API
OpenRouter         openrouter.ai/docs/cookbook/administration/usage-accounting
vLLM, Ollama       docs.vllm.ai/en/latest/features/automatic_prefix_caching, docs.ollama.com/api/openai-compatibility
DashScope          help.aliyun.com/zh/model-studio/context-cache
"""

from __future__ import annotations

from typing import Any

import pytest

from fastapi_aibridge.formats import chat_completions, messages, responses
from fastapi_aibridge.formats.usage import gone_on, total

from .observing import answered, streamed

CHAT: list[tuple[str, dict[str, Any], tuple[int, int, int, int], dict[str, int]]] = [
    (
        "OpenAI",
        {
            "prompt_tokens": 1117,
            "completion_tokens": 46,
            "total_tokens": 1163,
            "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 20,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
        (93, 46, 1024, 0),
        {"reasoning": 20, "audio_input": 0, "audio_output": 0, "accepted_prediction": 0, "rejected_prediction": 0},
    ),
    (
        "Azure OpenAI",
        {
            "completion_tokens": 33,
            "completion_tokens_details": {"reasoning_tokens": 0},
            "prompt_tokens": 843,
            "prompt_tokens_details": None,
            "total_tokens": 876,
        },
        (843, 33, 0, 0),
        {"reasoning": 0},
    ),
    (
        "Gemini, compatible API: thinking is in the total only",
        {"completion_tokens": 12, "prompt_tokens": 8, "total_tokens": 143},
        (8, 135, 0, 0),
        {"reasoning": 123},
    ),
    (
        "DeepSeek",
        {
            "prompt_tokens": 100,
            "completion_tokens": 13,
            "total_tokens": 113,
            "prompt_tokens_details": {"cached_tokens": 64},
            "prompt_cache_hit_tokens": 64,
            "prompt_cache_miss_tokens": 36,
            "completion_tokens_details": {"reasoning_tokens": 9},
        },
        (36, 13, 64, 0),
        {"reasoning": 9},
    ),
    (
        "DeepSeek, before it had details",
        {
            "prompt_tokens": 100,
            "completion_tokens": 13,
            "total_tokens": 113,
            "prompt_cache_hit_tokens": 64,
            "prompt_cache_miss_tokens": 36,
        },
        (36, 13, 64, 0),
        {},
    ),
    (
        "Kimi",
        {"prompt_tokens": 19, "completion_tokens": 13, "total_tokens": 32, "cached_tokens": 12},
        (7, 13, 12, 0),
        {},
    ),
    (
        "xAI: reasoning beside the completion",
        {
            "prompt_tokens": 32,
            "completion_tokens": 9,
            "total_tokens": 135,
            "prompt_tokens_details": {"text_tokens": 32, "audio_tokens": 0, "image_tokens": 0, "cached_tokens": 6},
            "completion_tokens_details": {
                "reasoning_tokens": 94,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
            "num_sources_used": 0,
        },
        (26, 103, 6, 0),
        {"reasoning": 94, "audio_input": 0, "audio_output": 0, "accepted_prediction": 0, "rejected_prediction": 0},
    ),
    (
        "Mistral",
        {"prompt_tokens": 16, "total_tokens": 50, "completion_tokens": 34, "num_cached_tokens": 8},
        (8, 34, 8, 0),
        {},
    ),
    (
        "Mistral, with details beside the count",
        {
            "prompt_tokens": 16,
            "total_tokens": 50,
            "completion_tokens": 34,
            "num_cached_tokens": 8,
            "prompt_tokens_details": {"cached_tokens": 8},
            "prompt_audio_seconds": None,
        },
        (8, 34, 8, 0),
        {},
    ),
    (
        "details by a name without an s",
        {
            "prompt_tokens": 11,
            "total_tokens": 111,
            "completion_tokens": 100,
            "prompt_token_details": {"cached_tokens": 10},
            "completion_token_details": {"reasoning_tokens": 9},
        },
        (1, 100, 10, 0),
        {"reasoning": 9},
    ),
    (
        "Groq",
        {
            "queue_time": 0.037,
            "prompt_tokens": 18,
            "prompt_time": 0.0007,
            "completion_tokens": 556,
            "completion_time": 0.46,
            "total_tokens": 574,
            "total_time": 0.46,
            "completion_tokens_details": {"reasoning_tokens": 213},
        },
        (18, 556, 0, 0),
        {"reasoning": 213},
    ),
    (
        "Groq, with a prompt that is cached",
        {
            "prompt_tokens": 4641,
            "completion_tokens": 86,
            "total_tokens": 4727,
            "prompt_tokens_details": {"cached_tokens": 4608},
            "completion_tokens_details": None,
        },
        (33, 86, 4608, 0),
        {},
    ),
    (
        "Gemini, compatible API: thinking and a cached prompt",
        {
            "completion_tokens": 744,
            "prompt_tokens": 1469,
            "total_tokens": 2496,
            "completion_tokens_details": {"accepted_prediction_tokens": None, "audio_tokens": None},
            "prompt_tokens_details": {"audio_tokens": None, "cached_tokens": 1019},
        },
        (450, 1027, 1019, 0),
        {"reasoning": 283},
    ),
    (
        "Gemini, by a gateway that leaves the thoughts out of the completion",
        {
            "completion_tokens": 0,
            "total_tokens": 81,
            "prompt_tokens": 21,
            "completion_tokens_details": {"reasoning_tokens": 60},
        },
        (21, 60, 0, 0),
        {"reasoning": 60},
    ),
    (
        "xAI, as its newer models count",
        {
            "prompt_tokens": 125,
            "completion_tokens": 48,
            "total_tokens": 173,
            "prompt_tokens_details": {"text_tokens": 125, "audio_tokens": 0, "image_tokens": 0, "cached_tokens": 98},
            "completion_tokens_details": {"reasoning_tokens": 40},
            "cost_in_usd_ticks": 158500,
        },
        (27, 48, 98, 0),
        {"reasoning": 40, "audio_input": 0},
    ),
    (
        "OpenRouter, with a cache that is written",
        {
            "completion_tokens": 2,
            "completion_tokens_details": {"reasoning_tokens": 0},
            "cost": 0.95,
            "cost_details": {"upstream_inference_cost": 19},
            "prompt_tokens": 194,
            "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 100, "audio_tokens": 0},
            "total_tokens": 196,
        },
        (94, 2, 0, 100),
        {"reasoning": 0, "audio_input": 0},
    ),
    (
        "OpenRouter",
        {
            "prompt_tokens": 10339,
            "completion_tokens": 60,
            "total_tokens": 10399,
            "cost": 0.0013,
            "is_byok": False,
            "prompt_tokens_details": {"cached_tokens": 10318, "cache_write_tokens": 11, "audio_tokens": 0},
            "cost_details": {"upstream_inference_cost": None},
            "completion_tokens_details": {"reasoning_tokens": 4, "image_tokens": 0},
        },
        (10, 60, 10318, 11),
        {"reasoning": 4, "image_output": 0, "audio_input": 0},
    ),
    (
        "vLLM",
        {
            "prompt_tokens": 5,
            "total_tokens": 12,
            "completion_tokens": 7,
            "prompt_tokens_details": {"cached_tokens": 4},
        },
        (1, 7, 4, 0),
        {},
    ),
    ("Ollama", {"prompt_tokens": 26, "completion_tokens": 298, "total_tokens": 324}, (26, 298, 0, 0), {}),
    ("members by Responses' names", {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10}, (7, 3, 0, 0), {}),
    (
        "DashScope",
        {
            "prompt_tokens": 100,
            "completion_tokens": 10,
            "total_tokens": 110,
            "prompt_tokens_details": {
                "cached_tokens": 0,
                "cache_creation_input_tokens": 60,
                "cache_creation": {"ephemeral_5m_input_tokens": 60},
                "cache_type": "ephemeral",
            },
        },
        (40, 10, 0, 60),
        {"cache_creation_5m": 60},
    ),
    (
        "LiteLLM: what is written to the cache is among the details",
        {
            "prompt_tokens": 100,
            "completion_tokens": 10,
            "total_tokens": 110,
            "prompt_tokens_details": {"cached_tokens": 60, "cache_creation_tokens": 20},
        },
        (20, 10, 60, 20),
        {},
    ),
    (
        "a gateway before Bedrock: what is cached is beside the input",
        {
            "prompt_tokens": 70,
            "completion_tokens": 10,
            "total_tokens": 140,
            "prompt_tokens_details": {"cached_tokens": 60},
        },
        (70, 10, 60, 0),
        {},
    ),
    (
        "Perplexity: reasoning at the top",
        {"prompt_tokens": 8, "completion_tokens": 30, "total_tokens": 38, "reasoning_tokens": 9, "citation_tokens": 4},
        (8, 30, 0, 0),
        {"reasoning": 9},
    ),
    ("counts as floats", {"prompt_tokens": 8.0, "completion_tokens": 3.0, "total_tokens": 11.0}, (8, 3, 0, 0), {}),
    (
        "both spellings, of which one says nothing",
        {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0, "input_tokens": 8, "output_tokens": 3},
        (8, 3, 0, 0),
        {},
    ),
    (
        "a gateway before Anthropic",
        {
            "prompt_tokens": 50,
            "completion_tokens": 5,
            "total_tokens": 55,
            "cache_read_input_tokens": 30,
            "cache_creation_input_tokens": 10,
        },
        (10, 5, 30, 10),
        {},
    ),
]


def counted(usage: Any) -> tuple[int, int, int, int]:
    return usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, usage.cache_write_tokens


@pytest.mark.parametrize(("provider", "usage", "right", "extra"), CHAT, ids=[one[0] for one in CHAT])
def test_chat(provider: str, usage: dict[str, Any], right: tuple[int, int, int, int], extra: dict[str, int]) -> None:
    """Each provider's usage is recorded as it was billed, blocking and streamed."""
    blocking = answered(chat_completions, {"id": "x", "choices": [{"message": {}}], "usage": usage})
    stream = streamed(chat_completions, {"id": "x", "choices": []}, {"choices": [], "usage": usage}, "[DONE]")
    for watching in (blocking, stream):
        [recorded] = watching.facts().token_usages
        assert (counted(recorded), recorded.extra) == (right, extra)


@pytest.mark.parametrize(
    "ending",
    [
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": {"prompt_tokens": 19}}]},  # Kimi
        {"choices": [], "x_groq": {"id": "req_1", "usage": {"prompt_tokens": 19}}},
    ],
)
def test_usage_in_other_places_of_a_stream(ending: dict[str, Any]) -> None:
    """Usage within a choice, or in a member of its own, is found."""
    watching = streamed(chat_completions, {"id": "x", "choices": []}, ending, "[DONE]")
    assert [one.input_tokens for one in watching.facts().token_usages] == [19]


@pytest.mark.parametrize(
    "usages",
    [
        ({"prompt_tokens": 19, "completion_tokens": 1}, {"prompt_tokens": 19, "completion_tokens": 7}),
        ({"prompt_tokens": 19, "completion_tokens": 7}, {"prompt_tokens": 0, "completion_tokens": 0}),
        ({"prompt_tokens": 19}, {"completion_tokens": 7}),
        ({"prompt_tokens": 19, "completion_tokens": 7}, None),
    ],
)
def test_usage_in_every_chunk(usages: tuple[Any, Any]) -> None:
    """Counts in every chunk are cumulative: the last ones hold, and zeros or null at the end erase nothing."""
    chunks = [{"id": "x", "choices": [{"index": 0, "delta": {"content": "a"}}], "usage": one} for one in usages]
    watching = streamed(chat_completions, *chunks, "[DONE]")
    assert [counted(one) for one in watching.facts().token_usages] == [(19, 7, 0, 0)]


def test_cumulative_counts_keep_a_bounded_number_of_members() -> None:
    """The number of kept members is bounded, however many the stream names."""
    known: dict[str, Any] = {"output_tokens": 1}
    for number in range(1000):
        known = gone_on(known, {f"odd_{number}": 1, "output_tokens": number})
    assert len(known) <= 64
    assert known["output_tokens"] == 999


def test_names_of_the_other_apis() -> None:
    """A compatible server may report usage under the names of another API."""
    chat = {"prompt_tokens": 8, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}}
    for format_, answer in ((responses, {"id": "x", "output": []}), (messages, {"id": "x", "content": []})):
        [recorded] = answered(format_, {**answer, "usage": chat}).facts().token_usages
        assert counted(recorded) == (6, 3, 2, 0)


def test_cache_writes_of_which_only_the_kinds_are_named() -> None:
    """The kinds of cache writes are summed if the total is missing."""
    kinds = {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20}
    usage = {"input_tokens": 8, "output_tokens": 3, "cache_creation": kinds}
    [recorded] = answered(messages, {"id": "m", "content": [], "usage": usage}).facts().token_usages
    assert (counted(recorded), recorded.extra) == ((8, 3, 0, 30), {"cache_creation_5m": 10, "cache_creation_1h": 20})


def test_responses() -> None:
    """OpenAI's usage is read, and reasoning that xAI counts beside the output is added."""
    details = {"output_tokens_details": {"reasoning_tokens": 10}, "input_tokens_details": {"cached_tokens": 3}}
    for tokens, right in (((8, 12, 20), (5, 12, 3, 0)), ((8, 2, 20), (5, 12, 3, 0))):
        usage = {**dict(zip(("input_tokens", "output_tokens", "total_tokens"), tokens, strict=True)), **details}
        [recorded] = answered(responses, {"id": "x", "output": [], "usage": usage}).facts().token_usages
        assert (counted(recorded), recorded.extra["reasoning"]) == (right, 10)


MESSAGE = {"type": "message", "input_tokens": 23000, "output_tokens": 1000, "cache_read_input_tokens": 5}
COMPACTION = {"type": "compaction", "input_tokens": 180000, "output_tokens": 3500, "cache_creation_input_tokens": 7}
ADVISOR = {"type": "advisor_message", "model": "claude-opus", "input_tokens": 400, "output_tokens": 90}


@pytest.mark.parametrize(
    ("iterations", "right"),
    [
        ([MESSAGE], (23000, 1000, 5, 0)),
        ([COMPACTION, MESSAGE], (203000, 4500, 5, 7)),
        ([MESSAGE, COMPACTION, MESSAGE, ADVISOR], (203400, 4590, 5, 7)),
        ("odd", (23000, 1000, 5, 0)),
    ],
)
def test_iterations_of_other_kinds_are_billed_beside_the_message(iterations: Any, right: tuple[int, ...]) -> None:
    """Anthropic's top-level counts cover the message alone; iterations of other kinds are added to them."""
    usage = {key: value for key, value in MESSAGE.items() if key != "type"} | {"iterations": iterations}
    blocking = answered(messages, {"id": "m", "content": [], "usage": usage})
    start = {"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 23000, "output_tokens": 1}}}
    stream = streamed(messages, start, {"type": "message_delta", "delta": {}, "usage": usage}, {"type": "message_stop"})
    for watching in (blocking, stream):
        [recorded] = watching.facts().token_usages
        assert counted(recorded) == right


def test_a_zero_in_a_delta_says_nothing() -> None:
    """A zero in a later event erases no earlier count, at any depth, because counts of a stream only grow."""
    before = {"input_tokens": 1500, "cache_creation": {"ephemeral_1h_input_tokens": 9}, "service_tier": "standard"}
    now = {"input_tokens": 0, "output_tokens": 16, "cache_creation": {"ephemeral_1h_input_tokens": 0}, "new": 0}
    expected = {**before, "output_tokens": 16, "new": 0}
    assert gone_on(before, now) == expected
    assert gone_on(expected, {"output_tokens": 20, "input_tokens": None}) == {**expected, "output_tokens": 20}


def test_usages_of_rounds_add_up() -> None:
    """The usage of rounds is summed member by member, and lists are joined, so that no iteration is lost."""
    one = {"input_tokens": 1, "iterations": [MESSAGE], "details": {"a": 2, "b": None}, "tier": "x"}
    two = {"input_tokens": 2, "iterations": [COMPACTION], "details": {"a": 3}, "tier": "y"}
    assert total([one, two]) == {
        "input_tokens": 3,
        "iterations": [MESSAGE, COMPACTION],
        "details": {"a": 5, "b": None},
        "tier": "y",
    }
