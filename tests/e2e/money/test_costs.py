"""The cost of interceptions, from the usage that providers report and from estimates."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Sequence
from typing import Any

import pytest

from fastapi_aibridge import InterceptionRecord, Status
from tests.e2e.gateway.bodies import CHAT, MESSAGES, RESPONSES, Wire, sse
from tests.e2e.gateway.gateway import ADMIN, Gateway, gateway

pytestmark = pytest.mark.anyio

PRICES = {
    "openai": {"house": {"input": 1.5, "output": 6, "cache_read": 0.15}, "other": {"input": 100, "output": 100}},
    "anthropic": {"house": {"input": 3, "output": 15, "cache_read": 0.3, "cache_write": 3.75}},
}
CUT = "word " * 400
"""A text of 2,000 characters."""


def pieces_of(said: str) -> list[str]:
    return [said[at : at + 5] for at in range(0, len(said), 5)]


def chat(delta: dict[str, Any], **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    return sse({"id": "c1", "object": "chat.completion.chunk", "model": "house", "choices": [choice], **more})


def chat_begins(said: str) -> list[bytes]:
    return [chat({"role": "assistant", "content": ""}), *(chat({"content": word}) for word in pieces_of(said))]


def messages_begins(said: str) -> list[bytes]:
    usage = {"input_tokens": 40, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 0, "output_tokens": 1}
    start = {"type": "message_start", "message": {"id": "m1", "model": "house", "role": "assistant", "usage": usage}}
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    return [
        sse(start, "message_start"),
        sse(block, "content_block_start"),
        *(
            sse({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}})
            for text in pieces_of(said)
        ),
    ]


def responses_begins(said: str) -> list[bytes]:
    created = {"type": "response.created", "sequence_number": 0, "response": {"id": "r1", "status": "in_progress"}}
    deltas = [
        {"type": "response.output_text.delta", "sequence_number": number, "item_id": "i1", "delta": text}
        for number, text in enumerate(pieces_of(said), 1)
    ]
    # The repeated text counts once.
    done = {"type": "response.output_text.done", "sequence_number": 9999, "item_id": "i1", "text": said}
    return [sse(one, str(one["type"])) for one in (created, *deltas, done)]


async def cut_off(gate: Gateway, wire: Wire, events: Sequence[bytes]) -> InterceptionRecord:
    """Break a stream off after these events; return its record."""
    body = wire.ask(stream=True, model="house")
    asked = asyncio.create_task(gate.request("POST", wire.target, body))
    call = await gate.upstream.call()
    await call.stream(*events)
    call.reset()
    await asked
    return await gate.record()


async def admin(gate: Gateway, path: str) -> bytes:
    return (await gate.request("GET", f"/ai/admin/{path}", key=ADMIN)).body


@pytest.mark.parametrize(
    ("wire", "begins", "price"),
    [(CHAT, chat_begins, 6), (MESSAGES, messages_begins, 15), (RESPONSES, responses_begins, 6)],
    ids=["chat", "messages", "responses"],
)
async def test_a_stream_that_breaks_off_costs_what_was_said(wire: Wire, begins: Any, price: float) -> None:
    """A stream that breaks off costs an estimate: some 500 tokens for 2,000 characters, and the input."""
    async with gateway(prices=PRICES) as gate:
        record = await cut_off(gate, wire, begins(CUT))
    assert record.ending is not None
    assert record.ending.status is Status.FAILED
    assert record.ending.cost_estimated
    (usage,) = record.facts.token_usages
    assert (usage.partial, usage.cost_estimated) == (True, True)
    body = len(wire.ask(stream=True, model="house"))
    expected = 500 * price + (40 * 3 + 100 * 0.3 if wire is MESSAGES else body / 4 * 1.5)
    assert usage.cost == record.ending.cost
    assert record.ending.cost == pytest.approx(expected, rel=0.02)


async def test_a_stream_that_breaks_off_behind_its_usage_costs_exactly_that() -> None:
    final = sse({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}})
    async with gateway(prices=PRICES) as gate:
        record = await cut_off(gate, MESSAGES, [*messages_begins(CUT), final])
    assert record.ending is not None
    assert (record.ending.cost, record.ending.cost_estimated) == (40 * 3 + 100 * 0.3 + 7 * 15, False)


async def test_a_stream_that_its_client_leaves_costs_what_was_said() -> None:
    async with gateway(prices=PRICES) as gate:
        async with gate.connected() as client:
            await client.send("POST", CHAT.target, CHAT.ask(stream=True, model="house"))
            call = await gate.upstream.call()
            await call.stream(*chat_begins("a" * 2000))
            await client.head()
            read = b""
            while read.count(b"aaa") < 1:
                read += await client.piece()
        await call.until_gone()
        record = await gate.record()
    assert record.ending is not None
    assert record.ending.status is Status.CANCELLED
    assert record.ending.cost_estimated
    assert record.facts.token_usages[0].output_tokens == 500


async def test_a_whole_answer_costs_what_its_usage_says() -> None:
    async with gateway(prices=PRICES) as gate:
        asked = asyncio.create_task(gate.request("POST", CHAT.target, CHAT.ask(model="house")))
        await (await gate.upstream.call()).answer(CHAT.blocking)
        answer = await asked
        record = await gate.record()
        told = json.loads(
            (
                await gate.request(
                    "GET", f"/ai/admin/interceptions/{answer.header('x-aibridge-interception-id')}", key=ADMIN
                )
            ).body
        )
        metrics = (await gate.request("GET", "/ai/admin/metrics", key=ADMIN)).body.decode()
        (usage,) = json.loads(await admin(gate, "usage"))["items"]
    assert record.ending is not None
    assert (record.ending.cost, record.ending.cost_estimated) == (8 * 1.5 + 2 * 6, False)
    assert (told["cost_usd"], told["cost_estimated"]) == (0.000024, False)
    (message,) = told["token_usages"]
    assert (message["cost_usd"], message["cost_estimated"]) == (0.000024, False)
    assert message["price"] | {"date": ""} == {
        "source": "settings", "date": "", "input": 1.5, "output": 6, "cache_read": 0.15, "cache_write": 1.875,
        "cache_write_1h": 3,
    }  # fmt: skip
    assert usage["cost_usd"] == 0.000024
    assert 'aibridge_cost_usd_total{model="house",provider="openai"} 2.4e-05' in metrics


async def test_an_answer_without_usage_is_not_free() -> None:
    """A response without usage, as from some compatible servers, has an estimated cost."""
    body = json.loads(CHAT.blocking)
    del body["usage"]
    body["choices"][0]["message"]["content"] = CUT
    async with gateway(prices=PRICES) as gate:
        asked = asyncio.create_task(gate.request("POST", CHAT.target, CHAT.ask(model="house")))
        await (await gate.upstream.call()).answer(json.dumps(body).encode())
        await asked
        record = await gate.record()
    assert record.ending is not None
    assert record.ending.cost_estimated
    assert record.facts.token_usages[0].output_tokens == 500


async def test_a_page_that_is_no_answer_costs_nothing() -> None:
    """A page that is no response, such as a proxy's login, costs nothing."""
    async with gateway(prices=PRICES) as gate:
        asked = asyncio.create_task(gate.request("POST", CHAT.target, CHAT.ask(model="house")))
        await (await gate.upstream.call()).answer(b"<html>Please log in</html>")
        await asked
        record = await gate.record()
    assert record.ending is not None
    assert (record.ending.cost, record.facts.token_usages) == (0, [])


async def test_a_client_that_leaves_before_the_answer_has_asked_all_the_same() -> None:
    async with gateway(prices=PRICES) as gate:
        async with gate.connected() as client:
            await client.send("POST", CHAT.target, CHAT.ask(model="house"))
            call = await gate.upstream.call()
        await call.until_gone()
        record = await gate.record()
    assert record.ending is not None
    assert record.ending.status is Status.CANCELLED
    (usage,) = record.facts.token_usages
    assert (usage.input_tokens > 10, usage.output_tokens, usage.cost_estimated) == (True, 0, True)


@pytest.mark.parametrize("status", [400, 429, 500])
async def test_what_a_provider_refuses_costs_nothing(status: int) -> None:
    async with gateway(prices=PRICES) as gate:
        asked = asyncio.create_task(gate.request("POST", CHAT.target, CHAT.ask(model="house")))
        await (await gate.upstream.call()).answer(b'{"error": {"message": "no"}}', status=status)
        await asked
        record = await gate.record()
    assert record.ending is not None
    assert (record.ending.cost, record.ending.cost_estimated) == (0, False)
    assert record.facts.token_usages == []


@pytest.mark.parametrize(
    ("begun", "charged"),
    [
        (b"", False),
        (b"not HTTP\r\n\r\n", False),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 10\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", True),
    ],
)
async def test_an_answer_that_breaks_off_behind_its_head_costs_the_input(begun: bytes, charged: bool) -> None:
    async with gateway(prices=PRICES) as gate:
        asked = asyncio.create_task(gate.request("POST", CHAT.target, CHAT.ask(model="house")))
        call = await gate.upstream.call()
        await call.write(begun)
        call.close()
        assert (await asked).status >= 500
        record = await gate.record()
    assert record.ending is not None
    assert record.ending.cost_estimated is charged
    assert record.ending.cost == pytest.approx(len(CHAT.ask(model="house")) / 4 * 1.5 if charged else 0, abs=1.5)


@pytest.mark.parametrize("listens", [False, True], ids=["refused", "timeout"])
async def test_an_upstream_that_cannot_be_reached_costs_nothing(listens: bool) -> None:
    """Nothing was sent if the connection was refused, or not accepted in time."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        if listens:
            for one in waiting:
                one.setblocking(False)
                one.connect_ex(("127.0.0.1", port))
        else:
            full.close()
        reached = {"base_url": f"http://127.0.0.1:{port}/v1", "connect_timeout": 0.2}
        async with gateway(prices=PRICES, providers=reached) as gate:
            answer = await gate.request("POST", CHAT.target, CHAT.ask(model="house"))
            record = await gate.record()
        for one in waiting:
            one.close()
    assert answer.status == (504 if listens else 502)
    assert record.ending is not None
    assert (record.ending.cost, record.facts.token_usages) == (0, [])


async def test_a_broken_stream_costs_what_its_service_tier_does() -> None:
    """The tier that the stream's events name sets the price of the text that was seen."""
    dearer = {"openai": {"house": {"input": 0, "output": 6, "service_tiers": {"priority": {"input": 0, "output": 60}}}}}
    async with gateway(prices=dearer) as gate:
        first = chat({"role": "assistant", "content": CUT}, service_tier="priority")
        record = await cut_off(gate, CHAT, [first])
    assert record.ending is not None
    assert (record.ending.cost, record.ending.cost_estimated) == (30_000, True)
    assert record.facts.token_usages[0].service_tier == "priority"


async def test_a_broken_stream_costs_the_providers_tools_that_it_called() -> None:
    """Calls of the provider's own tools that were seen are charged, though the usage that counts them never came."""
    priced = {"anthropic": {"house": {"input": 0, "output": 0, "calls": {"web_search_requests": 0.01}}}}
    search = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    called = [sse({"type": "content_block_start", "index": at, "content_block": search}) for at in (1, 2, 3)]
    async with gateway(prices=priced) as gate:
        record = await cut_off(gate, MESSAGES, [*messages_begins("Hello"), *called])
    assert record.ending is not None
    assert (record.ending.cost, record.ending.cost_estimated) == (30_000, True)


async def test_a_model_without_a_price_is_not_free_but_unknown() -> None:
    async with gateway(prices=PRICES) as gate:
        asked = asyncio.create_task(gate.request("POST", CHAT.target, CHAT.ask(model="nobody-has-a-price-for-this")))
        await (await gate.upstream.call()).answer(CHAT.blocking)
        await asked
        record = await gate.record()
        metrics = (await admin(gate, "metrics")).decode()
        ready = json.loads((await gate.request("GET", "/ai/readyz?verbose", key=None)).body)
        (usage,) = json.loads(await admin(gate, "usage"))["items"]
    assert record.ending is not None
    assert record.ending.cost is None
    assert 'aibridge_unpriced_total{provider="openai"} 1.0' in metrics
    assert ready["components"]["prices"] == "models in use without a price: 1"
    assert usage["cost_usd"] is None


async def test_a_deployment_costs_what_the_model_behind_it_costs() -> None:
    """A deployment, as on Azure, costs what the model named in its response costs."""
    body = {**json.loads(CHAT.blocking), "model": "house"}
    async with gateway(prices=PRICES) as gate:
        asked = asyncio.create_task(gate.request("POST", CHAT.target, CHAT.ask(model="my-deployment")))
        await (await gate.upstream.call()).answer(json.dumps(body).encode())
        await asked
        record = await gate.record()
    assert record.ending is not None
    assert record.ending.cost == 24


async def test_a_deployment_is_reserved_for_once_its_model_is_known() -> None:
    """What a deployment costs is known from its first answer; then budgets hold for it."""
    body = {**json.loads(CHAT.blocking), "model": "house"}
    tight = [{"scope": "initiator", "id": "alice", "usd": 0.01, "period": "month"}]
    async with gateway(prices=PRICES, budgets=tight) as gate:
        asked = asyncio.create_task(gate.request("POST", CHAT.target, CHAT.ask(model="my-deployment")))
        await (await gate.upstream.call()).answer(json.dumps(body).encode())
        assert (await asked).status == 200
        refused = await gate.request("POST", CHAT.target, CHAT.ask(model="my-deployment"))
        assert (refused.status, json.loads(refused.body)["error"]["code"]) == (429, "insufficient_quota")
        assert gate.upstream.untouched


async def test_nobody_pays_for_prices_where_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the prices extra and without a setting, no cost is recorded."""
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    async with gateway() as gate:
        asked = asyncio.create_task(gate.request("POST", CHAT.target, CHAT.ask(stream=True)))
        call = await gate.upstream.call()
        await call.stream(*chat_begins("a b"))
        call.reset()
        await asked
        record = await gate.record()
    assert record.ending is not None
    assert (record.ending.cost, record.facts.token_usages) == (None, [])


@pytest.mark.parametrize("said", ["", CUT])
async def test_an_error_that_a_stream_ends_with_costs_what_was_said_before(said: str) -> None:
    error = sse({"error": {"message": "The server is overloaded", "type": "server_error"}})
    async with gateway(prices=PRICES) as gate:
        record = await cut_off(gate, CHAT, [*(chat_begins(said) if said else ()), error])
    assert record.ending is not None
    assert record.ending.status is Status.FAILED
    assert record.ending.cost_estimated is bool(said)
    assert [usage.output_tokens for usage in record.facts.token_usages] == ([500] if said else [])


async def test_a_deployments_stream_that_breaks_off_costs_what_the_model_behind_it_costs() -> None:
    async with gateway(prices=PRICES) as gate:
        asked = asyncio.create_task(gate.request("POST", CHAT.target, CHAT.ask(stream=True, model="my-deployment")))
        call = await gate.upstream.call()
        await call.stream(*chat_begins(CUT))
        call.reset()
        await asked
        record = await gate.record()
    assert record.ending is not None
    assert record.ending.cost is not None
    assert record.ending.cost > 3000


async def test_prices_of_nobody_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    """Prices for a provider that does not exist are reported in the log: its name may be misspelled."""
    async with gateway(prices={"opnai": {"m": {"input": 1, "output": 1}}, **PRICES}):
        assert [record.args for record in caplog.records if "AIBRIDGE_PRICES" in record.msg] == [("opnai",)]
