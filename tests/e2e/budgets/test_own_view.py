from __future__ import annotations

import pytest

from fastapi_aibridge import BudgetWarning, Principal
from tests.waiting import until

from .serving import admin, ask, budget, budgeted, me

pytestmark = pytest.mark.anyio


async def test_callers_see_what_they_spent_and_what_is_left() -> None:
    """With their own key callers see their own usage and budgets and nobody else's, and the response is not cached."""
    async with budgeted(budget(1), budget(0.5, "everybody", period="day"), budget(3, id="bob")) as gateway:
        for key in ("k-alice", "k-alice", "k-bob"):
            assert (await ask(gateway, key=key)).status_code == 200
        answer = await me(gateway, "/usage?by=model")
        assert answer.headers["cache-control"] == "no-store"
        (row,) = answer.json()["items"]
        assert (row["model"], row["calls"], row["cost_usd"]) == ("gpt-5", 2, 0.1)
        (mine,) = answer.json()["budgets"]
        assert mine.pop("resets_at").endswith("T00:00:00.000000Z")
        assert mine == {
            "scope": "initiator", "id": "alice", "period": "month", "usd": 1.0, "spent_usd": 0.1, "reserved_usd": 0.0,
            "left_usd": 0.9, "fallback_model": None,
        }  # fmt: skip
        items = (await me(gateway, "/interceptions")).json()["items"]
        assert [one["initiator_id"] for one in items] == ["alice", "alice"]
        assert {one["credential_hint"] for one in items} == {None}
        assert (await me(gateway, "/interceptions?initiator_id=bob")).status_code == 422
        assert (await me(gateway, "/usage?initiator_id=bob")).status_code == 422
        assert (await me(gateway, "/usage", key="t-admin")).status_code == 401


async def test_the_apps_own_dependency_says_whose_view_it_is() -> None:
    """The principal of the app's own dependency decides which budgets a caller sees."""

    async def ann() -> Principal:
        return Principal("ann", groups=("staff",))

    async with budgeted(budget(1, "group", "staff"), budget(2), bridge={"principal": ann}) as gateway:
        assert (await ask(gateway)).status_code == 200
        seen = (await me(gateway, "/usage")).json()["budgets"]
        assert [(one["scope"], one["id"], one["spent_usd"]) for one in seen] == [("group", "staff", 0.05)]


async def test_a_caller_with_an_id_that_no_record_takes() -> None:
    """An initiator id that is too long gets 400, and that response is not cached either."""

    async def endless() -> Principal:
        return Principal("a" * 1000)

    async with budgeted(budget(1), bridge={"principal": endless}) as gateway:
        answer = await me(gateway, "/usage")
        assert (answer.status_code, answer.headers["cache-control"]) == (400, "no-store")
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_handlers_are_told_too() -> None:
    async with budgeted(budget(1)) as gateway:
        assert (await ask(gateway)).status_code == 200
        async with gateway.aibridge.bridge(Principal("alice")) as bridge:
            usage = await bridge.usage()
        assert (usage.spent_usd, usage.left_usd, len(usage.budgets)) == (0.05, 0.95, 1)
        async with gateway.aibridge.bridge(Principal("bob")) as bridge:
            usage = await bridge.usage()
        assert (usage.spent_usd, usage.left_usd, list(usage.budgets)) == (0.0, None, [])


async def test_errors_and_keys_in_records_are_not_shown_to_callers() -> None:
    """Callers do not see the error texts of their records, which may name hosts."""
    async with budgeted(budget(1)) as gateway:
        gateway.provider.script = []
        assert (await ask(gateway)).status_code >= 400
        (one,) = (await me(gateway, "/interceptions")).json()["items"]
        assert one["status"] == "failed"
        assert one["error"] == "an error; administrators see its text"


async def test_administrators_set_budgets_while_the_app_runs() -> None:
    """An administrator's budget applies at once, counts from the period's start and is audited; bad ones get 422."""
    async with budgeted(budget(7, id="bob")) as gateway:
        assert (await ask(gateway)).status_code == 200
        path = "/budgets/initiator/alice?period=month"
        assert (await admin(gateway, "GET", path)).status_code == 404
        assert (await admin(gateway, "PUT", path, {"usd": 0.1})).json()["spent_usd"] == 0.05
        assert (await ask(gateway)).status_code == 429
        assert (await admin(gateway, "PUT", path, {"usd": 0.2, "scope": "initiator", "id": "alice"})).status_code == 200
        assert (await ask(gateway)).status_code == 200
        shown = (await admin(gateway, "GET", path)).json()
        assert (shown["usd"], shown["spent_usd"], shown["reserved_usd"], shown["source"]) == (0.2, 0.1, 0.0, "admin")
        listed = (await admin(gateway, "GET", "/budgets")).json()["items"]
        assert [(one["id"], one["source"]) for one in listed] == [("alice", "admin"), ("bob", "settings")]
        assert (await admin(gateway, "PUT", "/budgets/initiator/bob", {"usd": 9})).status_code == 409
        assert (await admin(gateway, "DELETE", "/budgets/initiator/bob")).status_code == 409
        for wrong in (
            *({"usd": usd} for usd in (-1, 1e10, 0.0000001, "x")),
            *(
                {"usd": 1, **more}
                for more in ({"more": 2}, {"id": "bob"}, {"period": "day"}, {"fallback_model": "m" * 600})
            ),
            {},
        ):
            assert (await admin(gateway, "PUT", path, wrong)).status_code == 422, wrong
        assert (await admin(gateway, "PUT", "/budgets/nobody/alice", {"usd": 1})).status_code == 422
        assert (await admin(gateway, "PUT", path, {"usd": 1}, token="k-alice")).status_code == 401
        assert (await admin(gateway, "DELETE", path)).status_code == 204
        assert (await admin(gateway, "DELETE", path)).status_code == 404
        assert (await ask(gateway)).status_code == 200
        for name in ("*", "default"):
            assert (await admin(gateway, "PUT", f"/budgets/default/{name}", {"usd": 0})).status_code == 200
        assert (await ask(gateway)).status_code == 429
        actions = [one["action"] for one in (await gateway.json("/audit"))["items"]]
        assert actions == ["budget.put", "budget.put", "budget.delete", "budget.put", "budget.put"]


@pytest.mark.parametrize(
    ("scope", "id_"), [("initiator", "alice"), ("default", "*"), ("everybody", "*"), ("group", "staff")]
)
async def test_a_budget_that_is_made_again_counts_what_was_spent_meanwhile(scope: str, id_: str) -> None:
    """A budget that is set again counts all spending of its period once, also from the time without a budget."""

    async def staff() -> Principal:
        return Principal("alice", groups=("staff",))

    async with budgeted(bridge={"principal": staff}) as gateway:
        path = f"/budgets/{scope}/{id_}"
        for status in (200, 429):
            assert (await admin(gateway, "PUT", path, {"usd": 0.17})).status_code == 200
            assert (await ask(gateway)).status_code == status
            assert (await admin(gateway, "DELETE", path)).status_code == 204
            assert (await ask(gateway)).status_code == 200
        shown = (await me(gateway, "/usage")).json()
        assert shown["items"][0]["cost_usd"] == 0.15
        await admin(gateway, "PUT", path, {"usd": 0.3})
        assert (await ask(gateway)).status_code == 200
        assert (await ask(gateway)).status_code == 200
        assert (await ask(gateway)).status_code == 429


@pytest.mark.parametrize(("scope", "id_"), [("initiator", "alice"), ("default", "*"), ("everybody", "*")])
async def test_of_another_amount_is_told_again(scope: str, id_: str) -> None:
    """A budget whose amount an administrator has changed warns again when it is used up."""
    warned: list[float] = []

    async def on_budget(warning: BudgetWarning) -> None:
        warned.append(warning.limit_usd)

    async with budgeted(bridge={"on_budget": on_budget}) as gateway:
        for usd in (0.08, 0.09, 0.07):
            await admin(gateway, "PUT", f"/budgets/{scope}/{id_}", {"usd": usd})
            for _ in range(2):
                assert (await ask(gateway)).status_code == 429
            await until(lambda usd=usd: warned[-1:] == [usd])  # type: ignore[misc]
    assert warned == [0.08, 0.09, 0.07]
