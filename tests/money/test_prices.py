"""Prices are found by provider, model and time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from fastapi_aibridge.money import prices as prices_module
from fastapi_aibridge.money.price import Price
from fastapi_aibridge.money.prices import Prices
from fastapi_aibridge.recorder import TokenUsage
from fastapi_aibridge.settings import Settings

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 11, 26, 17, 0, tzinfo=UTC)
MILLION = 1_000_000


@dataclass
class Vendor:
    name: str = "openai"
    type: str = "openai"
    base_url: str = "http://127.0.0.1:9"


def usage(**counts: Any) -> TokenUsage:
    return TokenUsage(message_id="m", **counts)


def configured(prices: Mapping[str, Any]) -> Prices:
    return Prices(Settings(prices=prices).prices, listed=False)


@pytest.fixture
async def listed() -> Prices:
    prices = Prices({})
    await prices.ready()
    return prices


def estimated(prices: Prices) -> int | None:
    """The estimated cost of a thousand input tokens now, in micro-dollars; None without a price."""
    price = prices.price(Vendor(), "house-model", datetime.now(UTC))
    return None if price is None else price.estimate(1000, 0)


def told(price: Price | None, **counts: Any) -> dict[str, Any]:
    assert price is not None
    return price.as_recorded(price.rates(usage(**counts)))


VERTEX = Vendor(
    "vertex", "openai", "https://aiplatform.googleapis.com/v1/projects/p/locations/global/endpoints/openapi"
)
HOUSE = {"openai": {"house-model": {"input": 1.5, "output": 6, "cache_read": 0.15, "cache_write": 1.875}}}


def test_configured_prices_are_exact_to_the_micro_dollar() -> None:
    price = configured(HOUSE).price(Vendor(), "house-model", NOW)
    assert price is not None
    # 8 x 1.50 + 10 x 6 + 3 x 0.15 = 72.45
    assert price.cost(usage(input_tokens=8, output_tokens=10, cache_read_tokens=3)) == 72
    assert price.cost(usage(input_tokens=MILLION, output_tokens=MILLION)) == 7_500_000
    assert price.cost(usage(cache_write_tokens=MILLION)) == 1_875_000
    assert told(price)["source"] == "settings"
    assert told(price)["date"] == "2026-11-26"


def test_a_cache_write_of_an_hour_costs_twice_the_input() -> None:
    price = configured(HOUSE).price(Vendor(), "house-model", NOW)
    assert price is not None
    written = usage(cache_write_tokens=1000, extra={"cache_creation_5m": 400, "cache_creation_1h": 600})
    # 400 x 1.875 + 600 x 3
    assert price.cost(written) == 2550


def test_what_has_no_price_of_its_own_is_not_free() -> None:
    price = configured({"openai": {"m": {"input": 2, "output": 8}}}).price(Vendor(), "m", NOW)
    assert price is not None
    assert price.cost(usage(cache_read_tokens=1000)) == 2000
    assert price.cost(usage(cache_write_tokens=1000)) == 2500
    assert price.cost(usage(input_tokens=1000, extra={"audio_input": 1000})) == 2000


def test_everything_that_can_be_configured() -> None:
    price = configured(
        {
            "openai": {
                "m": {
                    "input": 2, "output": 8, "cache_read": 0.5, "cache_write": 3, "cache_write_1h": 5,
                    "audio_input": 40, "audio_output": 80, "image_input": 10, "image_output": 20, "reasoning": 9,
                    "calls": {"web_search_requests": 0.01},
                    "long_context": {"above": 1000, "input": 4, "output": 12},
                    "service_tiers": {"flex": {"input": 1, "output": 4}},
                }
            }
        }
    ).price(Vendor(), "m", NOW)  # fmt: skip
    assert price is not None
    assert price.cost(usage(input_tokens=100, extra={"audio_input": 40, "image_input": 10})) == 50 * 2 + 1600 + 100
    assert price.cost(usage(output_tokens=100, extra={"audio_output": 10, "image_output": 5, "reasoning": 20})) == (
        65 * 8 + 800 + 100 + 180
    )
    assert price.cost(usage(cache_write_tokens=10, extra={"cache_creation_1h": 10})) == 50
    assert price.cost(usage(extra={"web_search_requests": 3})) == 30_000
    assert price.cost(usage(input_tokens=600, cache_read_tokens=400)) == 1400
    assert price.cost(usage(input_tokens=601, cache_read_tokens=400)) == 1001 * 4
    assert price.cost(usage(input_tokens=10, output_tokens=10, service_tier="flex")) == 50
    assert price.cost(usage(input_tokens=10, output_tokens=10, service_tier="other")) == 100
    assert price.estimate(10, 10) == 20 + 800  # all of it may be audio
    assert price.estimate(1001, 10) == 4124
    assert price.estimate(10, 10, ["flex"]) == 820


def test_the_providers_name_counts_before_its_type_and_a_name_before_a_pattern() -> None:
    prices = configured(
        {
            "openai": {"m": {"input": 1, "output": 1}, "house-*": {"input": 2, "output": 2}},
            "azure-eu": {"m": {"input": 3, "output": 3}, "house-big-*": {"input": 4, "output": 4}},
        }
    )
    elsewhere = Vendor(name="azure-eu")
    found = {
        (vendor.name, model): None if (price := prices.price(vendor, model, NOW)) is None else price.estimate(1, 0)
        for vendor in (Vendor(), elsewhere)
        for model in ("m", "house-small", "house-big-1", "n")
    }
    assert found == {
        ("openai", "m"): 1, ("openai", "house-small"): 2, ("openai", "house-big-1"): 2, ("openai", "n"): None,
        ("azure-eu", "m"): 3, ("azure-eu", "house-small"): 2, ("azure-eu", "house-big-1"): 4, ("azure-eu", "n"): None,
    }  # fmt: skip


def test_a_reload_brings_other_prices() -> None:
    prices = configured(HOUSE)
    assert estimated(prices) == 1500
    prices.missing(Vendor(), "m")
    prices.apply(Settings(prices={"openai": {"house-model": {"input": 2, "output": 2}}}).prices)
    assert estimated(prices) == 2000
    assert prices.unpriced == set()


@pytest.mark.parametrize(
    "model", ["m", "m[1m]", "m-20250929", "m-2025-09-29", "m@20250929", "m-latest", "models/m", "google/m"]
)
def test_a_configured_model_has_its_dated_and_aliased_names_too(model: str) -> None:
    assert configured({"openai": {"m": {"input": 1, "output": 1}}}).price(Vendor(), model, NOW) is not None


def test_a_deployment_is_expected_to_cost_what_its_last_answer_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prices_module, "_MOST", 2)
    prices = configured({"openai": {"m": {"input": 1, "output": 1}, "dear": {"input": 9, "output": 9}}})
    assert prices.expected(Vendor(), "mine", NOW) is None
    for model, answered in (("mine", "m"), ("mine", "dear"), ("m", "dear"), ("other", "m")):
        prices.answered(Vendor(), model, answered)
    assert told(prices.expected(Vendor(), "other", NOW))["input"] == 1
    assert told(prices.expected(Vendor(), "m", NOW))["input"] == 1  # it has a price of its own
    assert prices.expected(Vendor(), "mine", NOW) is None  # the oldest is forgotten
    prices.answered(Vendor(), "mine", "dear")
    assert told(prices.expected(Vendor(), "mine", NOW))["input"] == 9
    assert prices.expected(Vendor("another"), "mine", NOW) is None


@pytest.mark.parametrize(
    ("vendor", "model", "input_price", "output_price"),
    [
        (Vendor(), "gpt-5", 1.25, 10),
        (Vendor(), "gpt-5-2025-08-07", 1.25, 10),
        (Vendor(), "gpt-5-2029-01-01", 1.25, 10),
        (Vendor("claude", "anthropic"), "claude-opus-5-5", 4, 20),
        (Vendor("claude", "anthropic"), "claude-opus-5-5[1m]", 4, 20),
        (Vendor("eu", "openai", "https://eu.openai.azure.com/openai/v1"), "gpt-5", 1.25, 10),
        (Vendor("g", "openai", "https://generativelanguage.googleapis.com/v1beta/openai"), "models/gemini-2.5-flash",
         0.3, 2.5),
        (Vendor("deepseek"), "deepseek-v4-flash", 0.15, 0.6),
        (Vendor("aws", "anthropic", "https://bedrock-runtime.us-east-1.amazonaws.com"),
         "us.anthropic.claude-haiku-4-5-20251001-v1:0", 1.1, 5.5),
        (Vendor("aws", "anthropic", "https://bedrock-runtime.us-east-1.amazonaws.com"),
         "global.anthropic.claude-haiku-4-5-20251001-v1:0", 1, 5),
        (Vendor("bedrock", "anthropic"),
         "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-haiku-4-5-20251001-v1:0",
         1.1, 5.5),
        (Vendor("mantle", "anthropic", "https://bedrock-mantle.us-east-1.api.aws/anthropic"),
         "anthropic.claude-opus-4-7", 5.5, 27.5),
        (Vendor("aws", "anthropic", "https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com"),
         "us-gov.anthropic.claude-sonnet-4-5-20250929-v1:0", 3.3, 16.5),
        (VERTEX, "google/gemini-2.5-pro", 1.25, 10),
        (VERTEX, "publishers/google/models/gemini-2.5-pro", 1.25, 10),
        (VERTEX, "projects/p/locations/global/publishers/anthropic/models/claude-sonnet-4-5@20250929", 3, 15),
    ],
)  # fmt: skip
async def test_listed_models_are_found_as_their_provider_names_them(
    listed: Prices, vendor: Vendor, model: str, input_price: float, output_price: float
) -> None:
    price = told(listed.price(vendor, model, NOW))
    assert (price["input"], price["output"]) == (input_price, output_price)
    assert price["source"].startswith("genai-prices ")


@pytest.mark.parametrize(
    "model", ["", "nobody-knows-this", "arn:aws:bedrock:us-east-1:1:application-inference-profile/x"]
)
async def test_an_unknown_model_has_no_price(listed: Prices, model: str) -> None:
    assert listed.price(Vendor(), model, NOW) is None
    assert listed.price(Vendor(), model, NOW) is None


async def test_the_configured_price_comes_before_the_listed_one() -> None:
    prices = Prices(Settings(prices={"openai": {"gpt-5": {"input": 7, "output": 7}}}).prices)
    await prices.ready()
    assert told(prices.price(Vendor(), "gpt-5", NOW))["input"] == 7
    assert told(prices.price(Vendor(), "gpt-5-mini", NOW))["input"] == 0.25


async def test_a_price_holds_for_its_hours_and_days(listed: Prices) -> None:
    """DeepSeek's prices depend on the hour, and o3's on the day, 10 June 2025."""
    deepseek = Vendor("deepseek", "openai", "https://api.deepseek.com")

    def at(hour: int, minute: int = 0) -> float:
        moment = datetime(2026, 11, 26, hour, minute, tzinfo=UTC)
        return float(told(listed.price(deepseek, "deepseek-v4-flash", moment))["input"])

    assert [at(0, 59), at(1), at(3, 59), at(4), at(6), at(9, 59), at(10)] == [0.15, 0.3, 0.3, 0.15, 0.3, 0.3, 0.15]
    # An earlier moment still has its own price after a later one was asked for.
    assert [at(9, 59), at(10), at(0, 59), at(23)] == [0.3, 0.15, 0.15, 0.15]
    assert told(listed.price(Vendor(), "o3", datetime(2025, 6, 9, 23, tzinfo=UTC)))["input"] == 10
    assert told(listed.price(Vendor(), "o3", datetime(2025, 6, 10, tzinfo=UTC)))["input"] == 2


async def test_service_tiers_and_long_prompts_have_their_own_prices(listed: Prices) -> None:
    price = listed.price(Vendor(), "gpt-5", NOW)
    assert [told(price, service_tier=tier)["output"] for tier in (None, "flex", "priority", "default", "batch")] == [
        10, 5, 20, 10, 5,
    ]  # fmt: skip
    gemini = listed.price(Vendor("google"), "gemini-2.5-pro", NOW)
    assert [told(gemini, input_tokens=200_000 + more)["input"] for more in (0, 1)] == [1.25, 2.5]


async def test_prices_of_names_that_callers_choose_are_remembered_within_bounds(listed: Prices) -> None:
    for number in range(5000):
        listed.price(Vendor("deepseek"), f"m{number}", NOW)
    assert len(listed._known) == prices_module._MOST


async def test_a_list_that_cannot_be_read_leaves_the_configured_prices(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise ImportError("half installed")

    monkeypatch.setattr(prices_module, "_price_list", broken)
    prices = Prices(Settings(prices=HOUSE).prices)
    await prices.ready()
    assert prices.price(Vendor(), "gpt-5", NOW) is None
    assert prices.price(Vendor(), "house-model", NOW) is not None
    assert "AIBRIDGE_PRICES" in caplog.text


def test_nobody_asks_for_prices_without_the_extra_or_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Prices.wanted({}) is not None
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert Prices.wanted({}) is None
    prices = Prices.wanted(Settings(prices=HOUSE).prices)
    assert prices is not None
    assert prices.is_ready


@pytest.mark.parametrize(
    "wrong",
    [
        {"openai": {"m": {"input": -1, "output": 1}}},
        {"openai": {"m": {"input": 1}}},
        {"openai": {"m": {"input": 1, "output": "nan"}}},
        {"openai": {"m": {"input": 1, "output": 1e9}}},
        {"openai": {"m": {"input": 1, "output": 1, "outptu": 1}}},
        {"openai": {"m": 3}},
    ],
)
def test_prices_that_are_none_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Settings(prices=wrong)


@pytest.mark.parametrize("number", [10**12, -(10**12)])
def test_no_number_makes_a_cost_too_large_or_negative(number: int) -> None:
    price = configured({"openai": {"m": {"input": 1e6, "output": 1e6, "audio_input": 0}}}).price(Vendor(), "m", NOW)
    assert price is not None
    assert 0 <= price.cost(usage(input_tokens=number, output_tokens=number, extra={"audio_input": 10**18})) <= 10**12


def test_models_without_a_price_are_told_of_within_bounds(caplog: pytest.LogCaptureFixture) -> None:
    prices = configured({})
    for number in range(300):
        prices.missing(Vendor(), f"m{number % 150}")
    assert len(prices.unpriced) == 100
    assert len(caplog.records) == 100
    assert "'m7' of provider openai has no price" in caplog.text
