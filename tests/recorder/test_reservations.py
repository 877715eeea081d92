from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import delete, func, select

from fastapi_aibridge.budget import period_start
from fastapi_aibridge.recorder.database import Database
from fastapi_aibridge.recorder.records import Facts, ProviderObject, Status
from fastapi_aibridge.recorder.reservations import Counted, CounterKey, OverBudget, Reservation
from fastapi_aibridge.recorder.schema import budget_counters, inbox, interceptions, recorders, reservations
from fastapi_aibridge.recorder.sql import SQLRecorder

from .builders import ending, interception, usage

pytestmark = pytest.mark.anyio

MONTH = datetime(2026, 11, 1, tzinfo=UTC)
ALICE = CounterKey("initiator", "alice", "month", MONTH)
GROUP = CounterKey("group", "staff", "day", MONTH)


@pytest.fixture
async def recorder(url: str) -> AsyncIterator[SQLRecorder]:
    async with SQLRecorder(url) as recorder:
        yield recorder


def asked(estimate: int, limits: Mapping[int, int], **given: Any) -> Reservation:
    return Reservation(given.pop("interception_id", str(uuid4())), estimate, tuple(limits.items()), **given)


async def start(recorder: SQLRecorder, estimate: int, limits: Mapping[int, int]) -> str:
    one = asked(estimate, limits)
    await recorder.start_within(interception(id=one.interception_id), one)
    return one.interception_id


async def finish(recorder: SQLRecorder, interception_id: str, cost: int) -> None:
    await recorder.end(interception_id, ending(cost=cost), Facts(token_usages=[usage(1, cost=cost)]))


async def forget_recorders(url: str) -> None:
    """Delete the rows of all recorders, so that a recorder that starts later takes their interceptions as abandoned."""
    database = Database(url)
    database.open(create=False)
    async with database.writing() as connection:
        await connection.execute(delete(recorders))
    await database.close()


async def counted(recorder: SQLRecorder, key: CounterKey = ALICE) -> Counted:
    return (await recorder.counters.counted([key]))[key]


async def test_a_start_that_does_not_fit_leaves_nothing_behind(url: str, recorder: SQLRecorder) -> None:
    """A refused start leaves neither a record nor a reservation, not even in the counter that had room."""
    mine, ours = await recorder.counters.open([ALICE, GROUP])
    with pytest.raises(OverBudget) as refused:
        await start(recorder, 11, {mine: 100, ours: 10})
    assert refused.value.counter == ours
    assert await counted(recorder) == Counted(0, 0)
    assert await counted(recorder, GROUP) == Counted(0, 0)
    database = Database(url)
    database.open(create=False)
    async with database.reading() as connection:
        for table in (inbox, interceptions, reservations):
            assert await connection.scalar(select(func.count()).select_from(table)) == 0
    await database.close()


async def test_what_is_reserved_becomes_what_it_cost(recorder: SQLRecorder) -> None:
    """The estimate is reserved from the start on and replaced by the cost at the end, once."""
    (mine,) = await recorder.counters.open([ALICE])
    one = await start(recorder, 40, {mine: 100})
    assert await counted(recorder) == Counted(0, 40)
    await finish(recorder, one, 7)
    assert await counted(recorder) == Counted(7, 0)
    await recorder.end(one, ending(cost=7), Facts())
    assert await counted(recorder) == Counted(7, 0)


async def test_nothing_at_all_is_allowed_by_a_limit_of_zero(recorder: SQLRecorder) -> None:
    """A limit of zero refuses even a request that costs nothing."""
    (mine,) = await recorder.counters.open([ALICE])
    with pytest.raises(OverBudget):
        await start(recorder, 0, {mine: 0})


async def test_side_by_side_no_more_start_than_fit(recorder: SQLRecorder) -> None:
    """Concurrent starts never exceed the limit, however they share commits."""
    (mine,) = await recorder.counters.open([ALICE])
    results = await asyncio.gather(
        *(start(recorder, 10 if place % 7 else 1000, {mine: 200}) for place in range(70)), return_exceptions=True
    )
    started = [result for result in results if isinstance(result, str)]
    assert len(started) == 20
    assert await counted(recorder) == Counted(0, 200)
    await asyncio.gather(*(finish(recorder, one, 3) for one in started))
    assert await counted(recorder) == Counted(60, 0)


async def test_who_has_an_answer_may_count_on_what_it_has_not_used(recorder: SQLRecorder) -> None:
    """A request that follows a response finds the earlier reservations settled, even before their ends are filed."""
    (mine,) = await recorder.counters.open([ALICE])
    for _ in range(20):
        one = await start(recorder, 60, {mine: 100})
        await finish(recorder, one, 1)
    assert await counted(recorder) == Counted(20, 0)


async def test_each_further_call_reserves_anew(recorder: SQLRecorder) -> None:
    """A further call settles the cost so far and replaces the estimate."""
    (mine,) = await recorder.counters.open([ALICE])
    one = await start(recorder, 50, {mine: 100})
    await recorder.observe(one, Facts(token_usages=[usage(1, cost=30)]))
    await recorder.reserve(asked(60, {mine: 100}, interception_id=one, spent=30))
    assert await counted(recorder) == Counted(30, 60)
    with pytest.raises(OverBudget):
        await recorder.reserve(asked(60, {mine: 100}, interception_id=one, spent=45))
    assert await counted(recorder) == Counted(30, 60)
    await finish(recorder, one, 45)
    assert await counted(recorder) == Counted(45, 0)


async def test_a_start_that_nobody_waits_for_any_more_keeps_nothing_reserved(recorder: SQLRecorder) -> None:
    """A start that is cancelled at any moment leaves no reservation."""
    (mine,) = await recorder.counters.open([ALICE])
    for turns in range(30):
        task = asyncio.create_task(start(recorder, 10, {mine: 10_000}))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        (begun,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(begun, str):  # on a slow machine the start may be written before the cancellation
            await finish(recorder, begun, 0)
    await start(recorder, 10, {mine: 10_000})  # written in a commit after the others
    assert (await counted(recorder)).reserved == 10


async def test_the_next_start_releases_what_a_dead_recorder_has_reserved(url: str) -> None:
    """A dead recorder's reservations become the recorded costs, once; a late end corrects them."""
    async with SQLRecorder(url) as first:
        (mine,) = await first.counters.open([ALICE])
        running, ended = await start(first, 40, {mine: 100}), await start(first, 30, {mine: 100})
        await first.observe(running, Facts(token_usages=[usage(1, cost=5)]))
        await finish(first, ended, 2)
        assert await counted(first) == Counted(2, 40)
        await forget_recorders(url)
        async with SQLRecorder(url) as second:
            assert await counted(second) == Counted(7, 0)
            async with SQLRecorder(url) as third:
                assert await counted(third) == Counted(7, 0)
            await finish(first, running, 20)
            await counted(first)
            assert await counted(second) == Counted(22, 0)


@pytest.mark.parametrize("dies", [False, True], ids=["stopped", "dead"])
async def test_an_outcome_that_is_learnt_after_a_restart_is_counted(url: str, dies: bool) -> None:
    """A response that went on at its provider is counted, whether its recorder stopped or died."""
    async with SQLRecorder(url) as first:
        (mine,) = await first.counters.open([ALICE])
        running = await start(first, 40, {mine: 100})
        await first.observe(running, Facts(objects=[ProviderObject(kind="response", id="resp_1")]))
        await counted(first)
        if dies:
            await forget_recorders(url)
            async with SQLRecorder(url) as second:
                await learn(second, running)
            return
        await first.end(running, ending(status=Status.INTERRUPTED), Facts())
    async with SQLRecorder(url) as second:
        await learn(second, running)


async def test_the_tokens_of_a_response_are_known_at_once(recorder: SQLRecorder) -> None:
    """A response's tokens are known at once, for the reservation of a request that continues it."""
    one = interception()
    await recorder.start(one)
    await recorder.end(
        one.id, ending(), Facts(token_usages=[usage(7)], objects=[ProviderObject(kind="response", id="resp_1")])
    )
    record = await recorder.get(one.id)
    assert record is not None
    (told,) = record.facts.token_usages
    total = told.input_tokens + told.output_tokens + told.cache_read_tokens + told.cache_write_tokens
    assert await recorder.counters.tokens_of("openai", "resp_1") == total > 0
    assert await recorder.counters.tokens_of("openai", "resp_2") == 0
    assert await recorder.counters.tokens_of("other", "resp_1") == 0


async def learn(recorder: SQLRecorder, interception_id: str) -> None:
    """End a resumed response twice, and check that its cost is counted once."""
    assert await counted(recorder) == Counted(0, 0)
    assert await recorder.resume("openai", "resp_1", "alice") is not None
    await finish(recorder, interception_id, 9)
    assert await counted(recorder) == Counted(9, 0)
    await finish(recorder, interception_id, 9)
    assert await counted(recorder) == Counted(9, 0)


async def test_a_counter_that_is_new_begins_with_what_the_records_say(url: str) -> None:
    """A budget that is added during its period starts with the recorded costs."""
    async with SQLRecorder(url) as recorder:
        for initiator, moment, cost in (("alice", MONTH, 4), ("alice", datetime(2026, 10, 31, tzinfo=UTC), 8),
                                        ("bob", MONTH, 16)):  # fmt: skip
            one = interception(initiator_id=initiator, started_at=moment)
            await recorder.start(one)
            await finish(recorder, one.id, cost)
        everybody = CounterKey("everybody", "*", "month", MONTH)
        await recorder.counters.open([ALICE, everybody])
        assert await counted(recorder) == Counted(4, 0)
        assert await counted(recorder, everybody) == Counted(20, 0)


@pytest.mark.parametrize("scope", ["initiator", "member", "default", "group", "everybody"])
async def test_a_counter_that_nobody_used_for_a_while_catches_up(recorder: SQLRecorder, scope: str) -> None:
    """An unused counter is updated from the records once; reservations of running requests stay."""
    of, id_ = (scope, {"group": "staff", "everybody": "*"}[scope]) if scope in ("group", "everybody") else (
        "initiator", "alice")  # fmt: skip
    now = datetime.now(UTC)
    key = CounterKey(of, id_, "month", period_start("month", now))
    (mine,) = await recorder.counters.open([key])
    running = await start(recorder, 50, {mine: 100})
    await recorder.reserve(asked(40, {mine: 100}, interception_id=running, spent=3))
    unseen = interception(groups=("staff",))
    await recorder.start(unseen)
    await finish(recorder, unseen.id, 20)
    for _ in range(2):
        await recorder.counters.catch_up([(scope, id_ if scope == of else "staff", "month")])
        assert await counted(recorder, key) == Counted(23, 40)
    await finish(recorder, running, 30)
    assert await counted(recorder, key) == Counted(50, 0)


async def test_groups_whose_names_are_alike_are_told_apart(recorder: SQLRecorder) -> None:
    """Groups with similar names are distinct when the first budget of a group adds up its records."""
    for group in ("staff", "Staff", "st%ff", "staff2"):
        one = interception(groups=(group,), started_at=MONTH)
        await recorder.start(one)
        await finish(recorder, one.id, 4)
    await recorder.counters.open([GROUP])
    assert await counted(recorder, GROUP) == Counted(4, 0)


async def test_a_counter_that_somebody_has_deleted_does_not_keep_records_from_being_written(
    url: str, recorder: SQLRecorder
) -> None:
    """If somebody deletes a counter from the database, interceptions with reservations in it still end."""
    (mine,) = await recorder.counters.open([ALICE])
    one = await start(recorder, 40, {mine: 100})
    database = Database(url)
    database.open(create=False)
    async with database.writing() as connection:
        await connection.execute(delete(budget_counters))
    await database.close()
    await finish(recorder, one, 7)
    record = await recorder.get(one)
    assert record is not None
    assert record.ending is not None
    assert record.ending.cost == 7
    assert record.facts.token_usages
    await recorder.start(interception())


async def test_a_warning_is_claimed_once(recorder: SQLRecorder) -> None:
    """Each level of warning is claimed once, by the first caller."""
    (mine,) = await recorder.counters.open([ALICE])
    assert [await recorder.counters.claim_warning(mine, reached) for reached in (80, 80, 100, 80)] == [
        True,
        False,
        True,
        False,
    ]


async def test_counters_of_periods_that_are_long_over_are_deleted(recorder: SQLRecorder) -> None:
    """Only counters of periods that ended long ago are deleted."""
    old = CounterKey("initiator", "alice", "month", datetime(2026, 1, 1, tzinfo=UTC))
    await recorder.counters.open([old, ALICE])
    await recorder.counters.prune(datetime(2026, 11, 26, tzinfo=UTC))
    assert set(await recorder.counters.counted([old, ALICE])) == {ALICE}
