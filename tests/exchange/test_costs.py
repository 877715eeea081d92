"""The cost of an exchange: the price of the model that answered, and estimates for missing usage."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from fastapi_aibridge.exchange.costs import Costs
from fastapi_aibridge.formats.request import ModelRequest
from fastapi_aibridge.money.prices import Prices
from fastapi_aibridge.providers.openai import OpenAIProvider
from fastapi_aibridge.recorder import Facts, TokenUsage
from fastapi_aibridge.settings import ModelPrices, ProviderSettings


@pytest.mark.parametrize(
    ("alternatives", "answered", "cost"),
    [((), "dear", 10), (("dear",), "dear", 800), (("dear",), "", 10), (("dear",), "unheard-of", 10)],
)
def test_of_several_models_the_one_that_answered_is_paid_for(
    alternatives: tuple[str, ...], answered: str, cost: int
) -> None:
    """The model named in the response sets the price only if the request names it as an alternative."""
    listed = {name: ModelPrices(input=0, output=each) for name, each in (("cheap", 1), ("dear", 80))}
    request = ModelRequest(model="cheap", streaming=False, body=b"", alternatives=frozenset(alternatives))
    provider = OpenAIProvider("router", ProviderSettings.model_validate({"api_key": "sk-test"}))
    costs = Costs(Prices({"router": listed}, listed=False), provider, request, "chat", datetime.now(UTC))
    usage = TokenUsage(message_id="m", input_tokens=0, output_tokens=10)
    costs.settle(Facts(token_usages=[usage], model=answered))
    assert costs.total == cost


@pytest.mark.parametrize("output_tokens", [0, 500])
def test_what_was_said_is_paid_for_though_its_provider_tells_of_nothing(output_tokens: int) -> None:
    """Output is estimated from the text if the provider reports none; a plausible number is used as reported."""
    prices = Prices({"openai": {"gpt-5": ModelPrices(input=0, output=10)}}, listed=False)
    provider = OpenAIProvider("openai", ProviderSettings.model_validate({"api_key": "sk-test"}))
    request = ModelRequest(model="gpt-5", streaming=False, body=b"{}")
    costs = Costs(prices, provider, request, "chat", datetime.now(UTC))
    costs.called(b"{}")
    costs.answer = b'{"choices": [{"message": {"content": "%b"}}]}' % (b"word " * 400)
    costs.settle(Facts(token_usages=[TokenUsage(message_id="m", input_tokens=0, output_tokens=output_tokens)]))
    assert (costs.total, costs.estimated) == (5000, output_tokens == 0)
