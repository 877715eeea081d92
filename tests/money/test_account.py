"""The reservations and headers of an interception's account, tested without a gateway."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from fastapi_aibridge.budget import Budget
from fastapi_aibridge.errors import GatewayError
from fastapi_aibridge.formats import chat_completions, messages, responses
from fastapi_aibridge.formats.completions import completions
from fastapi_aibridge.formats.scanner import finish
from fastapi_aibridge.money.account import Account
from fastapi_aibridge.money.budgets import Budgets
from fastapi_aibridge.money.estimate import Estimator
from fastapi_aibridge.money.prices import Prices
from fastapi_aibridge.observability import Metrics
from fastapi_aibridge.principal import Principal
from fastapi_aibridge.recorder.memory import MemoryRecorder
from fastapi_aibridge.settings import ModelPrices
from tests.recorder.builders import interception

pytestmark = pytest.mark.anyio

CHAT = {"model": "gpt-5", "messages": []}


class OpenAI:
    name = type = "openai"
    base_url = "https://api.openai.com/v1"


async def opened(budgets: Budgets, principal: Principal) -> Account:
    request = finish(chat_completions.read(json.dumps(CHAT).encode(), 0))
    account = await budgets.account(principal, OpenAI(), request, datetime.now(UTC))
    assert account is not None
    return account


async def test_each_caller_is_told_of_the_limit_of_its_own() -> None:
    """A caller's headers and errors have its own limit, even if another limit on the same group was used meanwhile."""
    prices = Prices({"openai": {"gpt-5": ModelPrices(input=0, output=10_000)}}, listed=False)
    budgets = Budgets(MemoryRecorder(), prices, Metrics(registry=CollectorRegistry()))
    budgets.default_output = 90
    tight = Principal("alice", budgets=[{"usd": 1, "scope": "group", "id": "acme"}])
    wide = Principal("bob", budgets=[{"usd": 500, "scope": "group", "id": "acme"}])
    first = await opened(budgets, tight)
    await first.start(interception(id="first"), 1)
    budgets._recorder.counters.settle("first", 900_000)  # type: ignore[union-attr]
    mine, _ = await opened(budgets, tight), await opened(budgets, wide)
    assert "limit=1;" in mine.headers()["x-aibridge-budget"]
    with pytest.raises(GatewayError, match="may cost more than is left") as refused:
        await mine.start(interception(id="second"), 1)
    assert "limit=1;" in refused.value.headers["x-aibridge-budget"]


@pytest.mark.parametrize(
    ("prices", "refuses", "said"),
    [(None, False, "limit nothing"), (Prices({}, listed=False), False, "AIBRIDGE_UNPRICED"), (None, True, None)],
    ids=["no prices", "allowed", "refused"],
)
async def test_what_budgets_do_not_limit_is_said_when_there_are_some(
    prices: Prices | None, refuses: bool, said: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning that budgets may limit nothing is logged once, for budgets of the settings and of the admin API."""
    budgets = Budgets(MemoryRecorder(), prices, Metrics(registry=CollectorRegistry()))
    budgets.refuses_unpriced = refuses
    budgets.replace(configured=[])
    assert not caplog.messages
    budgets.replace(managed=[Budget(5, scope="default")])
    budgets.replace(managed=[Budget(6, scope="default")])
    assert len(caplog.messages) == (said is not None)
    assert (said or "") in "".join(caplog.messages)


DEAR = ModelPrices(
    input=0,
    output=10,
    audio_output=80,
    service_tiers={"priority": {"input": 0, "output": 20}, "fast": {"input": 0, "output": 60},
                   "flex": {"input": 0, "output": 5}},
)  # fmt: skip
PLAIN = ModelPrices(input=0, output=10, service_tiers=DEAR.service_tiers)


@pytest.mark.parametrize(
    ("body", "micro_dollars"),
    [
        ({"max_tokens": 100}, 1000),
        ({"max_tokens": 100, "service_tier": "priority"}, 2000),
        ({"max_tokens": 100, "service_tier": "flex"}, 1000),
        ({"max_tokens": 100, "service_tier": "unheard-of"}, 1000),
        ({"max_tokens": 100, "service_tier": ["priority"]}, 1000),
        ({"max_tokens": 100, "speed": "fast"}, 6000),
        ({"max_tokens": "100"}, 1000),
        ({"max_tokens": 100, "n": "7"}, 7000),
        ({"max_tokens": 100, "n": 7.0}, 7000),
        ({"max_tokens": 100, "n": -7}, 1000),
        ({"max_tokens": 1, "max_completion_tokens": 100}, 1000),
        ({"max_tokens": -5}, 40),
        ({"max_tokens": "a lot"}, 40),
        ({"max_tokens": 10**30}, 10**10),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
async def test_as_much_is_reserved_as_the_request_may_cost(body: dict[str, Any], micro_dollars: int) -> None:
    """The reservation uses the requested service tier's prices, and lengths in forms that lenient providers accept."""
    assert estimate(PLAIN, body) == micro_dollars


@pytest.mark.parametrize(
    ("prompt", "answers"),
    [("one", 1), (["a", "b", "c"], 3), ([1, 2, 3], 1), ([[1, 2], [3]], 2), ([], 1), ([[1] * 20] * 3000, 3000),
     (["a"] * 3000, 3000)],
    ids=["text", "texts", "tokens", "lists", "empty", "many lists", "many texts"],
)  # fmt: skip
async def test_each_prompt_of_a_completion_is_answered(prompt: object, answers: int) -> None:
    """Each prompt has as many answers, with as many tokens each, as the request asks for."""
    body = {"model": "gpt-5", "prompt": prompt, "max_tokens": 100, "n": 2}
    assert finish(completions.read(json.dumps(body).encode(), 0)).choices == 2 * answers


async def test_output_is_reserved_at_the_price_of_the_dearest_kind() -> None:
    """Output is reserved at its highest price, which may be that of audio."""
    assert estimate(DEAR, {"max_tokens": 100}) == 8000


@pytest.mark.parametrize(
    ("body", "micro_dollars"),
    [
        ({"models": ["cheap", "dear"]}, 8000),
        ({"models": ["dear"]}, 8000),
        ({"Models": ["cheap"]}, 1000),
        ({"models": [{"model": "dear"}, 5, None]}, 8000),
        ({"fallbacks": "dear"}, 8000),
        ({"models": []}, 1000),
        ({"models": ["cheap", "unheard-of"]}, None),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
@pytest.mark.parametrize(
    "read", [chat_completions.read, messages.read, completions.read, responses.read], ids=["chat", "m", "c", "r"]
)
async def test_the_dearest_model_that_may_answer_is_reserved_for(
    read: Any, body: dict[str, Any], micro_dollars: int | None
) -> None:
    """A list of models, as routers behind an OpenAI-compatible URL accept, is reserved at the highest price."""
    request = finish(read(json.dumps(CHAT | body).encode(), 0))
    listed = {name: ModelPrices(input=0, output=each) for name, each in (("gpt-5", 10), ("cheap", 1), ("dear", 80))}
    prices = Prices({"openai": listed}, listed=False)
    assert Estimator(prices, OpenAI(), request, 100, datetime.now(UTC))("gpt-5", 1) == micro_dollars


async def test_a_name_that_nobody_knows_takes_nothing_from_what_is_reserved() -> None:
    """An unknown fallback model does not lower the reservation, even where models without a price are allowed."""
    request = finish(chat_completions.read(json.dumps(CHAT | {"models": ["unheard-of"]}).encode(), 0))
    prices = Prices({"openai": {"gpt-5": ModelPrices(input=0, output=10)}}, listed=False)
    estimator = Estimator(prices, OpenAI(), request, 100, datetime.now(UTC))
    assert estimator("gpt-5", 1) is None
    assert estimator.of_priced("gpt-5", 1) == 1000
    assert estimator.of_priced("unheard-of", 1) == 0


async def test_a_request_names_so_many_other_models() -> None:
    """The number of other models is limited, because each has its price looked up."""
    names = [f"model-{number}" for number in range(65)]
    finish(chat_completions.read(json.dumps(CHAT | {"models": names[:64]}).encode(), 0))
    with pytest.raises(GatewayError, match="more than 64 other models"):
        finish(chat_completions.read(json.dumps(CHAT | {"models": names}).encode(), 0))


def estimate(price: ModelPrices, body: dict[str, Any]) -> int | None:
    read = messages.read if "speed" in body else chat_completions.read
    request = finish(read(json.dumps(CHAT | body).encode(), 0))
    prices = Prices({"openai": {"gpt-5": price}}, listed=False)
    return Estimator(prices, OpenAI(), request, 4, datetime.now(UTC))("gpt-5", 1)
