from __future__ import annotations

from typing import Any

import anthropic
import openai
import pytest
from fastapi import Header

from fastapi_aibridge import Budget, BudgetWarning, Principal
from fastapi_aibridge.errors import GatewayError
from fastapi_aibridge.exchange.admission import Admitted
from fastapi_aibridge.formats.large_text import Steps
from fastapi_aibridge.testing import Reply
from fastapi_aibridge.testing.replies import Usage
from tests.waiting import until

from .serving import CHAT, COUNT, MESSAGES, RESPONSES, ask, budget, budgeted, reply

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("path", [CHAT, RESPONSES, MESSAGES])
@pytest.mark.parametrize("stream", [False, True])
async def test_what_does_not_fit_is_refused_in_the_vendors_own_form(path: str, stream: bool) -> None:
    """A refusal is a 429 that says when the budget resets and that no retry helps; the provider is not called."""
    async with budgeted(budget(0.13)) as gateway:
        assert (await ask(gateway, path, stream=stream)).status_code == 200
        calls = len(gateway.provider.received)
        refused = await ask(gateway, path, stream=stream)
        assert refused.status_code == 429
        assert refused.headers["x-should-retry"] == "false"
        assert "retry-after" not in refused.headers
        error = refused.json()["error"]
        if path == MESSAGES:
            assert (refused.json()["type"], error["type"]) == ("error", "billing_error")
        else:
            assert (error["type"], error["code"]) == ("insufficient_quota", "insufficient_quota")
        assert "USD 0.08 are left of the budget of USD 0.13 for this month; it resets at" in error["message"]
        assert len(gateway.provider.received) == calls
        assert (await ask(gateway, path, stream=stream, max_tokens=8, max_completion_tokens=8, max_output_tokens=8)
                ).status_code == 200  # fmt: skip


async def test_what_is_free_is_not_blocked() -> None:
    """Counting tokens is never blocked, and a free model only by a budget of 0."""
    async with budgeted(budget(0.01), budget(0, id="bob")) as gateway:
        assert (await ask(gateway)).status_code == 429
        assert (await ask(gateway, COUNT)).status_code == 200
        assert (await ask(gateway, model="free")).status_code == 200
        assert (await ask(gateway, model="free", key="k-bob")).status_code == 429
        assert (await ask(gateway, COUNT, key="k-bob")).status_code == 200


async def test_only_the_answers_own_cost_is_spent() -> None:
    """The unspent part of a reservation is free again when the response ends, and failures cost nothing."""
    async with budgeted(budget(0.54)) as gateway:
        gateway.provider.script = [reply(), Reply(status=500), *[reply()] * 20]
        statuses = [(await ask(gateway)).status_code for _ in range(13)]
        # Nine responses cost five cents each; then fewer than ten are left.
        assert statuses == [200, 500, *[200] * 8, *[429] * 3]
        (shown,) = (await gateway.json("/budgets"))["items"]
        assert (shown["spent_usd"], shown["reserved_usd"]) == (0.45, 0)


async def test_without_a_bound_of_its_own_an_answer_counts_as_the_setting_says() -> None:
    """A request without an output limit reserves for 4096 tokens, or for `budget_default_output`."""
    async with budgeted(budget(40.95)) as gateway:
        assert (await ask(gateway, max_completion_tokens=None)).status_code == 429
    async with budgeted(budget(0.50), budget_default_output=50) as gateway:
        assert (await ask(gateway, max_completion_tokens=None)).status_code == 200
        assert (await ask(gateway, max_completion_tokens=None)).status_code == 429


async def test_all_models_that_may_answer_have_to_fit() -> None:
    """A request that lists several models must fit into the budget with each of them."""
    async with budgeted(budget(0.54)) as gateway:
        assert (await ask(gateway, models=["dear", "free"])).status_code == 429
        assert (await ask(gateway, models=["free"])).status_code == 200


async def test_a_conversation_that_the_provider_keeps_is_reserved_for() -> None:
    """The stored conversation is reserved for if this gateway has recorded the previous response."""
    prices = {"openai": {"gpt-5": {"input": 10_000, "output": 10_000}}}
    long = Reply("Hello", usage=Usage(input_tokens=60, output_tokens=5))
    async with budgeted(budget(2), reply=long, prices=prices) as gateway:
        first = (await ask(gateway, RESPONSES)).json()["id"]
        # 0.65 is spent; the request itself has some 30 input tokens, and may get 10 output tokens.
        assert (await ask(gateway, RESPONSES, previous_response_id="resp_unknown")).status_code == 200
        assert (await ask(gateway, RESPONSES, previous_response_id=first)).status_code == 429
        assert (await ask(gateway, RESPONSES)).status_code == 200


async def test_several_answers_are_reserved_several_times() -> None:
    async with budgeted(budget(0.25)) as gateway:
        assert (await ask(gateway, n=3)).status_code == 429
        assert (await ask(gateway, n=2)).status_code == 200


@pytest.mark.parametrize("scope", ["default", "everybody"])
async def test_a_default_is_each_callers_own_and_everybody_shares_one(scope: str) -> None:
    """A default budget is for each caller without one of the same period; all callers share the everybody budget."""
    async with budgeted(budget(0.10, scope), budget(0.30, period="month")) as gateway:
        assert (await ask(gateway, key="k-bob")).status_code == 200
        assert (await ask(gateway, key="k-bob")).status_code == 429
        assert (await ask(gateway)).status_code == (200 if scope == "default" else 429)


async def test_of_several_budgets_the_tightest_holds() -> None:
    async with budgeted(budget(5), budget(0.10, period="day"), budget(9, "everybody", period="week")) as gateway:
        assert (await ask(gateway)).status_code == 200
        refused = await ask(gateway)
        assert "for this day" in refused.json()["error"]["message"]


async def test_groups_spend_together_and_members_each_on_their_own() -> None:
    """Members of a group, as named by the app, share the group's budget, and each has a member budget."""

    async def staff() -> Principal:
        return Principal(next(callers), groups=("staff",))

    callers = iter(["ann", "bea", "ann", "bea", "cleo"])
    async with budgeted(
        budget(0.10, "member", "staff"), budget(0.19, "group", "staff", period="week"), bridge={"principal": staff}
    ) as gateway:
        assert [(await ask(gateway)).status_code for _ in range(5)] == [200, 200, 429, 429, 429]


async def test_a_principal_brings_budgets_of_its_own() -> None:
    """A principal's own budgets apply to the caller alone or to a tenant, and to nobody else."""
    plans: dict[str, list[dict[str, Any]]] = {
        "k-alice": [{"usd": 0.10}],
        "k-bob": [{"usd": 0.15, "scope": "group", "id": "acme"}],
        "k-none": [],
    }

    async def tenant(authorization: str = Header()) -> Principal:
        key = authorization.removeprefix("Bearer ")
        return Principal(key, budgets=plans[key])

    async with budgeted(bridge={"principal": tenant}) as gateway:
        keys = ["k-alice"] * 2 + ["k-bob"] * 3
        assert [(await ask(gateway, key=key)).status_code for key in keys] == [200, 429, 200, 200, 429]
        assert (await ask(gateway, key="k-none")).status_code == 200


async def test_a_model_without_a_price_runs_unless_that_is_refused() -> None:
    """A model without a price runs, or is refused with 403 if `unpriced` says so and a budget applies."""
    async with budgeted(budget(1)) as gateway:
        assert (await ask(gateway, model="house")).status_code == 200
    async with budgeted(budget(1), unpriced="refuse") as gateway:
        refused = await ask(gateway, model="house")
        assert refused.status_code == 403
        assert refused.json()["error"]["code"] == "model_not_priced"
        assert (await ask(gateway, model="house", key="k-bob")).status_code == 200


async def test_a_cheaper_model_takes_the_place_of_a_refusal() -> None:
    """The fallback model is requested from the provider instead of a refusal, and the record names both models."""
    async with budgeted(budget(0.90, fallback_model="gpt-5")) as gateway:
        answer = await ask(gateway, model="dear", stream=True)
        assert answer.status_code == 200
        assert gateway.provider.received[-1].json()["model"] == "gpt-5"
        (record,) = await gateway.listing()
        assert (record["model"], record["upstream_model"], record["cost_usd"]) == ("dear", "gpt-5", 0.05)
        assert (await ask(gateway)).status_code == 200
        assert [one["upstream_model"] for one in await gateway.listing()] == [None, "gpt-5"]
        metrics = (await gateway.read("/metrics")).text
        assert 'aibridge_cost_usd_total{model="gpt-5",provider="openai"} 0.1' in metrics
        charges = (await gateway.read("/interceptions/export", format="focus")).text
        assert "gpt-5" in charges
        assert "dear" not in charges
    async with budgeted(budget(0.09, fallback_model="gpt-5")) as gateway:
        assert (await ask(gateway, model="dear")).status_code == 429


async def test_a_cheaper_model_without_a_price_is_no_way_around_the_refusal() -> None:
    """The client is told of the budget, not of a model that it did not name."""
    async with budgeted(budget(0.09, fallback_model="house"), unpriced="refuse") as gateway:
        refused = await ask(gateway, model="dear")
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "insufficient_quota")
        assert await gateway.listing() == []


async def test_a_warning_is_told_once_at_80_and_at_100_percent(caplog: pytest.LogCaptureFixture) -> None:
    """Each threshold is reported once to the log, the metrics and the app, and by a header on all later responses."""
    warned: list[BudgetWarning] = []

    async def on_budget(warning: BudgetWarning) -> None:
        warned.append(warning)

    async with budgeted(budget(0.20), bridge={"on_budget": on_budget}, reply=reply(8)) as gateway:
        answers = []
        for limit in (8, 8, 3, 3):
            answers.append(await ask(gateway, max_completion_tokens=limit))
            await gateway.json("/budgets")  # waits until the end is written
        headers = [one.headers.get("x-aibridge-budget", "") for one in answers]
        assert [one.status_code for one in answers] == [200, 200, 200, 429]
        assert headers[:2] == ["", ""]
        assert headers[2].startswith("month; spent=0.16; limit=0.20; resets=20")
        assert headers[3].startswith("month; spent=0.24; limit=0.20; resets=20")
        await until(lambda: len(warned) == 2)
        assert [(one.scope, one.id, one.percent, one.limit_usd) for one in warned] == [
            ("initiator", "alice", 80, 0.2),
            ("initiator", "alice", 100, 0.2),
        ]
        metrics = (await gateway.read("/metrics")).text
        for percent in (80, 100):
            assert f'aibridge_budget_warnings_total{{percent="{percent}",scope="initiator"}} 1.0' in metrics
        assert 'aibridge_over_budget_total{period="month",scope="initiator"} 1.0' in metrics
        assert 'aibridge_refused_total{code="insufficient_quota"} 1.0' in metrics
    assert len([one for one in caplog.records if one.message.startswith("budget of initiator 'alice'")]) == 2


async def test_a_larger_budget_warns_at_its_own_levels() -> None:
    """A principal whose plan becomes larger is warned again, at 80 and 100 percent of the new amount."""
    warned: list[tuple[int, float]] = []
    plan = [0.10]

    async def on_budget(warning: BudgetWarning) -> None:
        warned.append((warning.percent, warning.limit_usd))

    async def principal() -> Principal:
        return Principal("alice", budgets=[Budget(plan[-1])])

    async with budgeted(bridge={"principal": principal, "on_budget": on_budget}, reply=reply(4)) as gateway:
        for amount, count in ((0.10, 0), (0.10, 1), (0.10, 2), (0.20, 3), (0.20, 4)):
            plan.append(amount)
            assert (await ask(gateway, max_completion_tokens=1)).status_code == 200
            await until(lambda count=count: len(warned) == count)  # type: ignore[misc]
            await gateway.json("/budgets")  # waits until the end is written
    assert warned == [(80, 0.1), (100, 0.1), (80, 0.2), (100, 0.2)]


async def test_both_sdks_stop_at_once_and_show_the_message() -> None:
    """Both SDKs, with their default retries, stop after one refusal and show its message."""
    async with budgeted(budget(0.01)) as gateway:
        base = gateway.url.rstrip("/")
        async with openai.AsyncOpenAI(api_key="k-alice", base_url=f"{base}/ai/openai/v1") as sdk:
            with pytest.raises(openai.RateLimitError, match="for this month; it resets at") as refused:
                await sdk.responses.create(model="gpt-5", input="hi")
            assert refused.value.code == "insufficient_quota"
        async with anthropic.AsyncAnthropic(api_key="k-alice", base_url=f"{base}/ai/anthropic") as claude:
            with pytest.raises(anthropic.RateLimitError, match="for this month; it resets at"):
                await claude.messages.create(model="gpt-5", max_tokens=10, messages=[{"role": "user", "content": "hi"}])
        metrics = (await gateway.read("/metrics")).text
        assert 'aibridge_refused_total{code="insufficient_quota"} 2.0' in metrics


async def test_a_cheaper_model_that_cannot_be_asked_for_keeps_nothing_reserved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If the fallback model cannot be requested, as without memory for it, the interception ends without a cost."""

    def no_room(_: Admitted, model: str) -> Steps[None]:
        raise GatewayError(503, "at_capacity", f"no room for {model}")
        yield

    async with budgeted(budget(0.90, fallback_model="gpt-5")) as gateway:
        monkeypatch.setattr(Admitted, "use_model", no_room)
        assert (await ask(gateway, model="dear")).status_code == 503
        (record,) = await gateway.listing()
        assert (record["status"], record["cost_usd"]) == ("failed", 0)
        (shown,) = (await gateway.json("/budgets"))["items"]
        assert (shown["spent_usd"], shown["reserved_usd"]) == (0, 0)
