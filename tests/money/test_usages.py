"""Usages as providers report them, and their costs, calculated by hand from the vendors' price pages.

Prices are US dollars for a million tokens, which are micro-dollars for one, of 26 November 2026:
developers.openai.com/api/docs/pricing, platform.claude.com/docs/en/about-claude/pricing,
aws.amazon.com/bedrock/pricing, ai.google.dev/gemini-api/docs/pricing, api-docs.deepseek.com/quick_start/pricing.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest

from fastapi_aibridge.exchange.costs import Costs
from fastapi_aibridge.formats.chat_completions.message import ChatMessage
from fastapi_aibridge.formats.messages.message import AnthropicMessage
from fastapi_aibridge.formats.request import ModelRequest
from fastapi_aibridge.formats.responses.message import ResponseMessage
from fastapi_aibridge.formats.text import Budget
from fastapi_aibridge.money.prices import Prices
from fastapi_aibridge.providers.anthropic import AnthropicProvider
from fastapi_aibridge.providers.openai import OpenAIProvider
from fastapi_aibridge.providers.provider import Provider
from fastapi_aibridge.settings import ProviderSettings

pytestmark = pytest.mark.anyio

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
PEAK = datetime(2026, 11, 26, 7, tzinfo=UTC)


class Case(NamedTuple):
    name: str
    provider: str
    model: str
    usage: dict[str, Any]
    cost: float
    """Micro-dollars."""
    more: dict[str, Any] = {}  # noqa: RUF012 - other members of the response
    moment: datetime = NOON


OPENAI, ANTHROPIC = "https://api.openai.com/v1", "https://api.anthropic.com"
AZURE, AZURE_CLAUDE = "https://acme.openai.azure.com/openai/v1", "https://acme.services.ai.azure.com/anthropic"
BEDROCK = "https://bedrock-runtime.us-east-1.amazonaws.com"
GEMINI = "https://generativelanguage.googleapis.com/v1beta/openai"
DEEPSEEK = "https://api.deepseek.com/v1"


def chat(prompt: int, completion: int, cached: int = 0, reasoning: int = 0, **details_in: int) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0, **details_in},
        "completion_tokens_details": {"reasoning_tokens": reasoning, "audio_tokens": 0},
    }


def responses(given: int, made: int, cached: int = 0, reasoning: int = 0) -> dict[str, Any]:
    return {
        "input_tokens": given,
        "input_tokens_details": {"cached_tokens": cached},
        "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": given + made,
    }


def claude(given: int, made: int, read: int = 0, five: int = 0, hour: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "input_tokens": given,
        "cache_creation_input_tokens": five + hour,
        "cache_read_input_tokens": read,
        "cache_creation": {"ephemeral_5m_input_tokens": five, "ephemeral_1h_input_tokens": hour},
        "output_tokens": made,
        "service_tier": "standard",
        **more,
    }


def step(kind: str, given: int, made: int, **more: Any) -> dict[str, Any]:
    return {"type": kind, **claude(given, made), **more}


SEARCHES = [{"type": "web_search_call", "id": f"ws_{n}", "action": {"type": "search"}} for n in range(3)]
OPENED = {"type": "web_search_call", "id": "ws_9", "action": {"type": "open_page"}}
SEARCHED_FILES = {"type": "file_search_call", "id": "fs_1", "status": "completed"}

CASES = [
    # OpenAI
    Case("gpt-5, cached and reasoning", OPENAI, "gpt-5", chat(2006, 300, 1920, 192),
         86 * 1.25 + 1920 * 0.125 + 300 * 10),
    Case("gpt-5, dated", OPENAI, "gpt-5-2025-08-07", responses(36, 87), 36 * 1.25 + 87 * 10),
    Case("gpt-5-mini", OPENAI, "gpt-5-mini", chat(19, 10), 19 * 0.25 + 10 * 2),
    Case("gpt-5, flex", OPENAI, "gpt-5", chat(1000, 100), 1000 * 0.625 + 100 * 5, {"service_tier": "flex"}),
    Case("gpt-5, priority", OPENAI, "gpt-5", responses(1000, 100), 1000 * 2.5 + 100 * 20, {"service_tier": "priority"}),
    Case("gpt-5, default", OPENAI, "gpt-5", responses(1000, 100), 1000 * 1.25 + 100 * 10, {"service_tier": "default"}),
    Case("gpt-4.1", OPENAI, "gpt-4.1", responses(328, 52, 128), 200 * 2 + 128 * 0.5 + 52 * 8),
    Case("gpt-5.4, up to 272K", OPENAI, "gpt-5.4", responses(272_000, 10), 272_000 * 2.5 + 10 * 15),
    Case("gpt-5.4, long", OPENAI, "gpt-5.4", responses(272_001, 10, 72_001), 200_000 * 5 + 72_001 * 0.5 + 10 * 22.5),
    Case("gpt-5.6, cache written", OPENAI, "gpt-5.6", chat(5000, 20, 1000, cache_write_tokens=3000),
         1000 * 4 + 1000 * 0.4 + 3000 * 5 + 20 * 20),
    Case("gpt-audio", OPENAI, "gpt-audio",
         {"prompt_tokens": 120, "completion_tokens": 200, "prompt_tokens_details": {"audio_tokens": 100},
          "completion_tokens_details": {"audio_tokens": 150}}, 20 * 2.5 + 100 * 32 + 50 * 10 + 150 * 64),
    Case("web searches at 10 dollars a thousand", OPENAI, "gpt-5", responses(100, 10),
         100 * 1.25 + 10 * 10 + 3 * 10_000, {"output": [*SEARCHES, OPENED]}),
    Case("file search at 2.50 dollars a thousand", OPENAI, "gpt-5", responses(100, 10),
         100 * 1.25 + 10 * 10 + 2500, {"output": [SEARCHED_FILES]}),
    Case("embeddings", OPENAI, "text-embedding-3-small", {"prompt_tokens": 1000, "total_tokens": 1000}, 20),
    Case("a half is rounded up", OPENAI, "gpt-5-mini", chat(2, 0), 1),
    # Anthropic
    Case("sonnet 5", ANTHROPIC, "claude-sonnet-5", claude(25, 150), 25 * 2 + 150 * 10),
    Case("cache of five minutes", ANTHROPIC, "claude-sonnet-5", claude(10, 50, read=1000, five=2000),
         10 * 2 + 1000 * 0.2 + 2000 * 2.5 + 50 * 10),
    Case("cache of an hour", ANTHROPIC, "claude-sonnet-5", claude(10, 50, hour=2000), 10 * 2 + 2000 * 4 + 50 * 10),
    Case("both lifetimes", ANTHROPIC, "claude-opus-4-8", claude(21, 393, read=188_086, five=456, hour=100),
         21 * 5 + 188_086 * 0.5 + 456 * 6.25 + 100 * 10 + 393 * 25),
    Case("no lifetime told", ANTHROPIC, "claude-opus-4-8",
         {"input_tokens": 4, "cache_creation_input_tokens": 100, "output_tokens": 1}, 4 * 5 + 100 * 6.25 + 25),
    Case("dated, as Claude Code asks", ANTHROPIC, "claude-haiku-4-5-20251001", claude(8, 9), 8 * 1 + 9 * 5),
    Case("[1m]", ANTHROPIC, "claude-sonnet-5[1m]", claude(900_000, 10), 900_000 * 2 + 10 * 10),
    Case("haiku 5.5, up to 100K", ANTHROPIC, "claude-haiku-5-5", claude(60_000, 10, read=40_000),
         60_000 * 0.1 + 40_000 * 0.01 + 10 * 0.5),
    Case("haiku 5.5, long", ANTHROPIC, "claude-haiku-5-5", claude(60_000, 10, read=40_001, hour=1000),
         60_000 * 0.5 + 40_001 * 0.05 + 1000 * 1 + 10 * 2.5),
    Case("web searches", ANTHROPIC, "claude-sonnet-5",
         claude(105, 6039, read=7123, five=7345, server_tool_use={"web_search_requests": 2, "web_fetch_requests": 4}),
         105 * 2 + 7123 * 0.2 + 7345 * 2.5 + 6039 * 10 + 2 * 10_000),
    Case("fast mode", ANTHROPIC, "claude-opus-4-8", claude(100, 10, speed="fast"), 100 * 10 + 10 * 50),
    Case("batch", ANTHROPIC, "claude-opus-4-8", claude(100, 10, service_tier="batch"), 100 * 2.5 + 10 * 12.5),
    Case("compaction", ANTHROPIC, "claude-opus-4-8",
         claude(23_000, 1000, iterations=[step("compaction", 180_000, 3500), step("message", 23_000, 1000)]),
         203_000 * 5 + 4500 * 25),
    Case("an advisor is another model", ANTHROPIC, "claude-haiku-4-5",
         claude(1760, 620, iterations=[
             step("message", 412, 89),
             step("advisor_message", 823, 1612, model="claude-opus-4-8"),
             step("message", 1348, 531),
         ]),
         1760 * 1 + 620 * 5 + 823 * 5 + 1612 * 25),
    Case("iterations are long, or not, each by itself", ANTHROPIC, "claude-haiku-5-5",
         claude(150_000, 20, iterations=[step("message", 70_000, 10), step("message", 80_000, 10)]),
         150_000 * 0.1 + 20 * 0.5),
    # Bedrock
    Case("an inference profile of a region", BEDROCK, "us.anthropic.claude-haiku-4-5-20251001-v1:0",
         claude(100, 10, read=1000, five=50, hour=50),
         100 * 1.1 + 1000 * 0.11 + 50 * 1.375 + 50 * 2.2 + 10 * 5.5),
    Case("the global profile", BEDROCK, "global.anthropic.claude-haiku-4-5-20251001-v1:0", claude(100, 10),
         100 * 1 + 10 * 5),
    Case("an ARN", BEDROCK,
         "arn:aws:bedrock:eu-west-1:1234:inference-profile/eu.anthropic.claude-haiku-4-5-20251001-v1:0",
         claude(1000, 10), 1000 * 1.1 + 10 * 5.5),
    # Azure
    Case("a deployment named after its model", AZURE, "gpt-5", chat(1000, 100, 512),
         488 * 1.25 + 512 * 0.125 + 100 * 10),
    Case("a deployment of another name", AZURE, "prod-eu-2", chat(1000, 100), 1000 * 2.5 + 100 * 10,
         {"model": "gpt-4o-2024-08-06"}),
    Case("Claude at Azure", AZURE_CLAUDE, "claude-haiku-4-5", claude(100, 10, hour=10), 100 * 1 + 10 * 2 + 10 * 5),
    # Gemini
    Case("gemini-2.5-flash, thoughts beside", GEMINI, "gemini-2.5-flash",
         {"prompt_tokens": 9, "completion_tokens": 10, "total_tokens": 519}, 9 * 0.3 + 510 * 2.5),
    Case("gemini-2.5-pro, long", GEMINI, "models/gemini-2.5-pro", chat(200_001, 100), 200_001 * 2.5 + 100 * 15),
    Case("gemini-2.5-flash, audio", GEMINI, "gemini-2.5-flash",
         {"prompt_tokens": 500, "completion_tokens": 10, "total_tokens": 510,
          "prompt_tokens_details": {"audio_tokens": 400}}, 100 * 0.3 + 400 * 1 + 10 * 2.5),
    # DeepSeek
    Case("deepseek, off peak", DEEPSEEK, "deepseek-v4-flash",
         {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100, "prompt_cache_hit_tokens": 640,
          "prompt_cache_miss_tokens": 360}, 360 * 0.15 + 640 * 0.003 + 100 * 0.6),
    Case("deepseek, at peak", DEEPSEEK, "deepseek-v4-flash", chat(1000, 100), 1000 * 0.3 + 100 * 1.2, moment=PEAK),
]  # fmt: skip


@pytest.fixture(scope="module")
async def prices() -> Prices:
    prices = Prices({})
    await prices.ready()
    return prices


def provider_at(base_url: str, kind: type[Provider]) -> Provider:
    return kind("some-name", ProviderSettings.model_validate({"base_url": base_url, "api_key": "sk-test"}))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_usages_cost_what_the_price_pages_say(case: Case, prices: Prices) -> None:
    request = ModelRequest(model=case.model, streaming=False, body=b"{}")
    message: ChatMessage | ResponseMessage | AnthropicMessage
    kind: type[Provider] = OpenAIProvider
    answer: dict[str, Any] = {"id": "m1", "model": case.model, "usage": case.usage, **case.more}
    if "cache_creation_input_tokens" in case.usage:
        message, kind = AnthropicMessage(Budget.of_record(1000)), AnthropicProvider
        answer |= {"content": []}
    elif "input_tokens" in case.usage:
        message = ResponseMessage(Budget.of_record(1000))
        answer = {"status": "completed", "output": [], **answer}
    else:
        message = ChatMessage(Budget.of_record(1000))
        answer |= {"choices": []}
    message.read(answer)
    costs = Costs(prices, provider_at(case.provider, kind), request, "any", case.moment)
    costs.called(b"{}")
    facts = message.facts()
    costs.settle(facts)
    expected = int(case.cost + 0.5)
    assert (costs.total, costs.estimated) == (expected, False)
    (usage,) = facts.token_usages
    assert usage.cost == expected
    assert usage.price is not None
    assert usage.price["source"].startswith("genai-prices ")


def test_there_are_as_many_as_promised() -> None:
    assert len(CASES) >= 40
