"""Responses in the background: their records end once, when the outcome becomes known, in whatever way."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from fastapi_aibridge import InterceptionQuery, InterceptionRecord, Status
from fastapi_aibridge.exchange import background
from fastapi_aibridge.recorder.sql import SQLRecorder
from tests.waiting import until

from .client import KEY, Answer
from .gateway import ADMIN, CountingRecorder, Gateway, gateway

pytestmark = pytest.mark.anyio

RESPONSES = "/ai/openai/v1/responses"
USAGE = {"input_tokens": 50, "output_tokens": 9}
CALL = {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"}


def response(status: str, **members: Any) -> dict[str, Any]:
    finished = {"usage": USAGE, "output": [CALL]} if status in ("completed", "incomplete", "cancelled") else {}
    made = {"id": "resp_1", "object": "response", "background": True, "output": [], "usage": None}
    return {**made, "status": status, **finished, **members}


async def ask(
    gate: Gateway, method: str, path: str, answer: object, body: object = None, *, status: int = 200
) -> Answer:
    data = b"" if body is None else json.dumps(body).encode()
    asked = asyncio.create_task(gate.request(method, f"{RESPONSES}{path}", data))
    call = await gate.upstream.call()
    await call.answer(json.dumps(answer).encode(), status=status)
    return await asked


async def delete(gate: Gateway, state: object, answer: object, *, status: int = 200) -> Answer:
    """Delete the response; the gateway first asks for its `state`."""
    asked = asyncio.create_task(gate.request("DELETE", f"{RESPONSES}/resp_1"))
    for method, body, code in (("GET", state, 200), ("DELETE", answer, status)):
        call = await gate.upstream.call()
        assert (call.method, call.path) == (method, "/v1/responses/resp_1")
        await call.answer(json.dumps(body).encode(), status=code)
    return await asked


async def begin(gate: Gateway, status: str = "queued") -> None:
    body = {"model": "gpt-5", "input": "think", "background": True}
    assert (await ask(gate, "POST", "", response(status), body)).status == 200


async def first(gate: Gateway) -> InterceptionRecord:
    """Return the record of the response itself; a cancellation has a record of its own."""
    recorder = gate.recorder
    assert isinstance(recorder, CountingRecorder)
    items = (await recorder.list(InterceptionQuery(limit=10))).items
    return next(one for one in items if one.interception.route == "/v1/responses")


async def ended(gate: Gateway) -> InterceptionRecord:
    recorder, id_ = gate.recorder, (await first(gate)).interception.id
    assert isinstance(recorder, CountingRecorder)
    async with asyncio.timeout(60), recorder.ended:
        await recorder.ended.wait_for(lambda: id_ in recorder.ends)
    assert recorder.ends.count(id_) == 1
    return await first(gate)


def tokens(record: InterceptionRecord) -> list[tuple[int, int]]:
    return [(usage.input_tokens, usage.output_tokens) for usage in record.facts.token_usages]


@pytest.mark.parametrize(
    ("status", "recorded"),
    [
        ("completed", Status.COMPLETED),
        ("incomplete", Status.COMPLETED),
        ("failed", Status.FAILED),
        ("cancelled", Status.CANCELLED),
    ],
)
async def test_the_clients_polling_tells_the_outcome(status: str, recorded: Status) -> None:
    """A client's poll that shows the outcome ends the record once, with the response's usage, calls and prompt."""
    async with gateway() as gate:
        await begin(gate)
        await ask(gate, "GET", "/resp_1", response("in_progress"))
        await ask(gate, "GET", "/resp_1/input_items", {"object": "list", "data": []})
        assert (await first(gate)).ending is None
        answer = await ask(gate, "GET", "/resp_1", response(status))
        assert json.loads(answer.body)["status"] == status
        record = await ended(gate)
        assert record.ending is not None
        assert record.ending.status == recorded
        assert tokens(record) == ([] if status == "failed" else [(50, 9)])
        assert [prompt.text for prompt in record.facts.prompts] == ["think"]
        assert len(record.facts.tool_usages) == (0 if status == "failed" else 1)
        await ask(gate, "GET", "/resp_1", response(status))
        await ended(gate)


async def test_a_response_that_is_finished_at_once() -> None:
    """A response that is finished at once is recorded at once."""
    async with gateway() as gate:
        await begin(gate, "completed")
        assert tokens(await ended(gate)) == [(50, 9)]


async def test_a_cancellation_tells_the_outcome() -> None:
    """The response to a cancellation shows the outcome, which is recorded."""
    async with gateway() as gate:
        await begin(gate)
        await ask(gate, "POST", "/resp_1/cancel", response("cancelled"), {})
        record = await ended(gate)
        assert record.ending is not None
        assert (record.ending.status, tokens(record)) == (Status.CANCELLED, [(50, 9)])


async def test_a_deleted_response_has_no_outcome() -> None:
    """A deletion ends the record as cancelled; a deletion that the provider refuses changes nothing."""
    async with gateway() as gate:
        await begin(gate)
        await delete(gate, response("in_progress"), {"error": {}}, status=409)
        assert (await first(gate)).ending is None
        await delete(gate, response("in_progress"), {"deleted": True})
        record = await ended(gate)
        assert record.ending is not None
        assert record.ending.status == Status.CANCELLED
        assert "deleted" in str(record.ending.error)


async def test_a_stream_that_its_client_leaves_goes_on() -> None:
    """The response goes on without its client, which can resume the stream, and the record ends with it."""
    async with gateway() as gate:
        body = {"model": "gpt-5", "input": "think", "background": True, "stream": True}
        async with gate.connected() as client:
            await client.send("POST", RESPONSES, json.dumps(body).encode())
            call = await gate.upstream.call()
            created = {"type": "response.created", "sequence_number": 0, "response": response("queued")}
            await call.stream(b"event: response.created\ndata: %s\n\n" % json.dumps(created).encode())
            await client.head()
            client.leave()
            await call.until_gone()
        await gate.idle()
        assert (await first(gate)).ending is None
        asked = asyncio.create_task(gate.request("GET", f"{RESPONSES}/resp_1?stream=true&starting_after=0"))
        call = await gate.upstream.call()
        done = {"type": "response.completed", "sequence_number": 1, "response": response("completed")}
        events = b"event: response.completed\ndata: %s\n\n" % json.dumps(done).encode()
        await call.stream(events[:40], events[40:])
        await call.end()
        assert (await asked).body == events
        record = await ended(gate)
        assert record.ending is not None
        assert (record.ending.status, tokens(record)) == (Status.COMPLETED, [(50, 9)])


async def test_the_gateway_asks_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway polls if no client does, and records a response that the provider no longer has as failed."""
    monkeypatch.setattr(background, "FIRST_LOOK", 0.05)
    async with gateway() as gate:
        await begin(gate)
        for answer, status in ((response("in_progress"), 200), ({"error": {}}, 500), (response("completed"), 200)):
            call = await gate.upstream.call()
            assert (call.method, call.path) == ("GET", "/v1/responses/resp_1")
            await call.answer(json.dumps(answer).encode(), status=status)
        assert tokens(await ended(gate)) == [(50, 9)]
    async with gateway() as gate:
        await begin(gate)
        await (await gate.upstream.call()).answer(b"{}", status=404)
        record = await ended(gate)
        assert record.ending is not None
        assert record.ending.status == Status.FAILED


async def test_an_outcome_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Polling for an outcome that does not come ends after a while, and the record fails."""
    monkeypatch.setattr(background, "FIRST_LOOK", 0.02)
    monkeypatch.setattr(background, "GIVEN_UP", 0.05)
    async with gateway() as gate:
        await begin(gate)
        for _ in range(2):
            await (await gate.upstream.call()).answer(json.dumps(response("queued")).encode())
        record = await ended(gate)
        assert record.ending is not None
        assert record.ending.status == Status.FAILED
        assert gate.upstream.untouched


async def test_the_apps_end_ends_what_waits() -> None:
    """The end of the app ends waiting records as interrupted."""
    async with gateway() as gate:
        await begin(gate)
        recorder = gate.recorder
        await gate.server.stop()
        assert isinstance(recorder, CountingRecorder)
        await until(lambda: bool(recorder.ends))
        record = await ended(gate)
        assert record.ending is not None
        assert record.ending.status == Status.INTERRUPTED


async def test_so_many_wait_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the maximum of waiting responses, records end at once with the facts that are known."""
    monkeypatch.setattr(background, "MAX_WAITING", 0)
    async with gateway() as gate:
        await begin(gate)
        record = await ended(gate)
        assert record.ending is not None
        assert record.ending.status == Status.COMPLETED


async def test_whose_it_is_is_known_from_the_start() -> None:
    """Another caller can neither poll nor cancel a running response."""
    other = "k-bob-0000000000000"
    async with gateway(client_keys={"alice": KEY, "bob": other}) as gate:
        await begin(gate)
        assert (await gate.request("GET", f"{RESPONSES}/resp_1", key=other)).status == 404
        assert (await gate.request("POST", f"{RESPONSES}/resp_1/cancel", b"{}", key=other)).status == 404
        assert gate.upstream.untouched


async def shown(gate: Gateway) -> dict[str, Any]:
    """Return the interception of the response, as the admin list shows it."""
    answer = await gate.request("GET", "/ai/admin/interceptions", key=ADMIN)
    (item,) = [one for one in json.loads(answer.body)["items"] if one["route"] == "/v1/responses"]
    return dict(item)


async def until_shown(gate: Gateway, status: str) -> dict[str, Any]:
    for _ in range(500):
        if (item := await shown(gate))["status"] == status:
            return item
        await asyncio.sleep(0.02)
    raise AssertionError(item)


@pytest.mark.parametrize(
    ("status", "recorded"), [("completed", "completed"), ("failed", "failed"), ("cancelled", "cancelled")]
)
async def test_the_outcome_is_recorded_after_a_restart(url: str, status: str, recorded: str) -> None:
    """After a restart polls record the outcome once, with the prompt and for the owner of the original request."""
    other = "k-bob-0000000000000"
    keys = {"alice": KEY, "bob": other}
    async with gateway(recorder=SQLRecorder(url), client_keys=keys) as gate:
        await begin(gate)
        assert (await shown(gate))["status"] == "running"
    async with gateway(recorder=SQLRecorder(url), client_keys=keys) as gate:
        assert (await shown(gate))["status"] == "interrupted"
        assert (await gate.request("GET", f"{RESPONSES}/resp_1", key=other)).status == 404
        await ask(gate, "GET", "/resp_1", response("in_progress"))
        assert (await shown(gate))["status"] == "interrupted"
        for _ in range(2):
            await ask(gate, "GET", "/resp_1", response(status))
        item = await until_shown(gate, recorded)
        assert [prompt["text"] for prompt in item["prompts"]] == ["think"]
        counted = [(usage["input_tokens"], usage["output_tokens"]) for usage in item["token_usages"]]
        assert counted == ([] if status == "failed" else [(50, 9)])
        assert len(item["tool_usages"]) == (0 if status == "failed" else 1)
        usage = json.loads((await gate.request("GET", "/ai/admin/usage", key=ADMIN)).body)
        assert sum(one["input_tokens"] for one in usage["items"]) == (0 if status == "failed" else 50)
    async with gateway(recorder=SQLRecorder(url), client_keys=keys) as gate:
        await ask(gate, "GET", "/resp_1", response(status))
        assert (await shown(gate))["status"] == recorded
        assert len((await shown(gate))["token_usages"]) == len(counted)


async def test_two_apps_that_learn_the_same_outcome_count_it_once(url: str) -> None:
    """Two apps that have both resumed the interception count its outcome once."""
    async with gateway(recorder=SQLRecorder(url)) as gate:
        await begin(gate)
    async with gateway(recorder=SQLRecorder(url)) as one, gateway(recorder=SQLRecorder(url)) as two:
        for gate in (one, two):
            await ask(gate, "GET", "/resp_1", response("in_progress"))
        for gate in (one, two):
            await ask(gate, "GET", "/resp_1", response("completed"))
        await until_shown(one, "completed")
        item = await until_shown(two, "completed")
        assert [usage["input_tokens"] for usage in item["token_usages"]] == [50]


async def test_the_gateway_asks_after_a_restart_once_somebody_has(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a restart a client's first poll makes the gateway poll as before."""
    async with gateway(recorder=SQLRecorder(url)) as gate:
        await begin(gate)
    monkeypatch.setattr(background, "FIRST_LOOK", 0.05)
    async with gateway(recorder=SQLRecorder(url)) as gate:
        await ask(gate, "GET", "/resp_1", response("in_progress"))
        await (await gate.upstream.call()).answer(json.dumps(response("completed")).encode())
        assert (await until_shown(gate, "completed"))["token_usages"][0]["input_tokens"] == 50
