"""Changes of budgets that are stored while something after them fails."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from fastapi_aibridge.money import budget_store
from fastapi_aibridge.money.budgets import Budgets
from fastapi_aibridge.recorder.counters import SQLCounters
from fastapi_aibridge.recorder.cursor import encode_cursor
from fastapi_aibridge.recorder.sql import SQLRecorder
from tests.waiting import until

from .apps import ADMIN, Model

pytestmark = pytest.mark.anyio

ALICE = "/ai/admin/budgets/initiator/alice"


async def _fail(*_: Any) -> Any:
    raise ConnectionError


@asynccontextmanager
async def asking(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://h", headers=ADMIN)
    async with app.router.lifespan_context(app), client:
        yield client


@pytest.fixture
def app(model: Model, tmp_path: Path) -> FastAPI:
    app = FastAPI()
    recorder = SQLRecorder(f"sqlite+aiosqlite:///{tmp_path / 'records.db'}")
    app.include_router(model.bridge(recorder=recorder).router, prefix="/ai")
    return app


async def test_a_stored_change_succeeds_also_if_it_cannot_be_read(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer says what was stored; amounts that cannot be read are null, and the change is followed later."""
    async with asking(app) as client:

        async def has_status(code: int) -> bool:
            return (await client.get(ALICE)).status_code == code

        with monkeypatch.context() as patch:
            patch.setattr(budget_store.BudgetStore, "read", _fail)
            patch.setattr(Budgets, "counted", _fail)
            made = await client.put(ALICE, json={"usd": 2})
            assert (made.status_code, made.json()["usd"], made.json()["spent_usd"]) == (200, 2, None)
            assert await has_status(404)
        await until(lambda: has_status(200))
        assert (await client.get(ALICE)).json()["spent_usd"] == 0
        with monkeypatch.context() as patch:
            patch.setattr(budget_store.BudgetStore, "read", _fail)
            assert (await client.delete(ALICE)).status_code == 204
        await until(lambda: has_status(404))
        actions = [one["action"] for one in (await client.get("/ai/admin/audit")).json()["items"]]
        assert actions == ["budget.delete", "budget.put"]


async def test_a_counter_that_could_not_catch_up_does_so_later(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    """The counter of a new budget is brought up to the records, though the first attempt fails."""
    caught_up: list[Any] = []
    catch_up = SQLCounters.catch_up

    async def first_fails(self: SQLCounters, budgets: Any) -> None:
        caught_up.append(list(budgets))
        if len(caught_up) == 1:
            raise ConnectionError
        await catch_up(self, caught_up[-1])

    monkeypatch.setattr(SQLCounters, "catch_up", first_fails)
    async with asking(app) as client:
        assert (await client.put(ALICE, json={"usd": 2})).status_code == 200
        await until(lambda: len(caught_up) == 2)
        assert (await client.put(ALICE, json={"usd": 3})).status_code == 200
    assert caught_up == [[("initiator", "alice", "month")]] * 2


async def test_the_cursor_of_another_list(app: FastAPI) -> None:
    """A cursor that a list has not handed out is refused, though another list has."""
    async with asking(app) as client:
        for number in range(3):
            await client.put(f"/ai/admin/budgets/group/g{number}", json={"usd": 1})
        cursors = {place: (await client.get(f"/ai/admin/{place}?limit=1")).json()["next_cursor"] for place in
                   ("budgets", "audit")}  # fmt: skip
        for place in ("budgets", "audit"):
            for source, cursor in (*cursors.items(), ("nobody", encode_cursor(-1, place))):
                answer = await client.get(f"/ai/admin/{place}?cursor={cursor}")
                assert answer.status_code == (200 if source == place else 400), (place, source)
