"""Objects that one caller stored at a provider under the shared key cannot be read, continued or deleted by another."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.e2e.gateway.client import KEY, Answer
from tests.e2e.gateway.gateway import Gateway, gateway

pytestmark = pytest.mark.anyio

BOB = "k-bob-0000000000000"
BOTH: dict[str, Any] = {"client_keys": {"alice": KEY, "bob": BOB}}
RESPONSES = "/ai/openai/v1/responses"
CONVERSATIONS = "/ai/openai/v1/conversations"


async def ask(
    gate: Gateway,
    key: str,
    method: str,
    path: str,
    body: object = None,
    *,
    answer: object = None,
    headers: dict[str, str] | None = None,
) -> Answer:
    """Send a request, which the provider answers with `answer` if it arrives there."""
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    asked = asyncio.create_task(gate.request(method, path, data, headers, key))
    called = asyncio.create_task(gate.upstream.call())
    await asyncio.wait((asked, called), return_when=asyncio.FIRST_COMPLETED)
    if called.done():
        call = called.result()
        await call.answer(json.dumps(answer or {"id": "x"}).encode())
    else:
        called.cancel()
    return await asked


async def conversation(gate: Gateway, key: str, id_: str = "conv_1") -> None:
    made = await ask(gate, key, "POST", CONVERSATIONS, {}, answer={"id": id_, "object": "conversation"})
    assert made.status == 200


@pytest.mark.parametrize("spelling", ["conv_1;x", "conv_1%3Bx", "conv_1%20", "%20conv_1", "conv%5F1"])
async def test_another_spelling_in_the_path_is_no_way_around(spelling: str) -> None:
    """An id with a path parameter or spaces is the id that a server would read, which may be another caller's."""
    async with gateway(**BOTH) as gate:
        await conversation(gate, KEY)
        assert missing(await ask(gate, BOB, "GET", f"{CONVERSATIONS}/{spelling}"), "Conversation", "conv_1")
        assert (await ask(gate, KEY, "GET", f"{CONVERSATIONS}/{spelling}")).status == 200


def missing(answer: Answer, what: str, id_: str) -> bool:
    error = json.loads(answer.body)["error"]
    return answer.status == 404 and bool(error["message"] == f"{what} with id '{id_}' not found.")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("POST", ""),
        ("DELETE", ""),
        ("HEAD", ""),
        ("GET", "/items"),
        ("POST", "/items"),
        ("GET", "/items/msg_1"),
        ("DELETE", "/items/msg_1"),
        ("GET", "?include=x"),
        ("GET", "/not/known/yet"),
    ],
)
async def test_anothers_conversation_does_not_exist(method: str, path: str) -> None:
    """Another caller's conversation gets 404 with each method and below it; its owner can use it."""
    async with gateway(**BOTH) as gate:
        await conversation(gate, KEY)
        body: object = {} if method == "POST" else None
        refused = await ask(gate, BOB, method, f"{CONVERSATIONS}/conv_1{path}", body)
        assert refused.status == 404
        assert method == "HEAD" or missing(refused, "Conversation", "conv_1")
        assert gate.upstream.untouched
        assert (await ask(gate, KEY, method, f"{CONVERSATIONS}/conv_1{path}", body)).status == 200


@pytest.mark.parametrize("spelling", ["conv%5F1", "%63onv_1", "conv_%31"])
async def test_no_spelling_of_an_id_is_another_id(spelling: str) -> None:
    """The decoded path is checked, so no spelling of an id avoids the check."""
    async with gateway(**BOTH) as gate:
        await conversation(gate, KEY)
        assert (await ask(gate, BOB, "GET", f"{CONVERSATIONS}/{spelling}")).status == 404
        assert gate.upstream.untouched


STORED = {
    "id": "resp_1",
    "object": "response",
    "status": "completed",
    "output": [
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "message", "id": "msg_1", "role": "assistant", "content": []},
    ],
}


async def test_anothers_response_does_not_exist() -> None:
    """Another caller's response and its items get 404, in paths and in bodies; their owner can use them."""
    asked = {"model": "gpt-5", "input": "Hello"}
    uses: list[tuple[str, str, object, str, str]] = [
        ("GET", "/resp_1", None, "Response", "resp_1"),
        ("GET", "/resp_1/input_items", None, "Response", "resp_1"),
        ("POST", "/resp_1/cancel", {}, "Response", "resp_1"),
        ("DELETE", "/resp_1", None, "Response", "resp_1"),
        ("POST", "", {**asked, "previous_response_id": "resp_1"}, "Response", "resp_1"),
        ("POST", "/compact", {**asked, "previous_response_id": "resp_1"}, "Response", "resp_1"),
        ("POST", "", {**asked, "input": [{"type": "item_reference", "id": "msg_1"}]}, "Item", "msg_1"),
        ("POST", "", {**asked, "input": [{"type": "reasoning", "id": "rs_1", "summary": []}]}, "Item", "rs_1"),
    ]
    async with gateway(**BOTH) as gate:
        assert (await ask(gate, KEY, "POST", RESPONSES, asked, answer=STORED)).status == 200
        await gate.records()
        for method, path, body, what, id_ in uses:
            assert missing(await ask(gate, BOB, method, f"{RESPONSES}{path}", body), what, id_), path
        assert gate.upstream.untouched
        for method, path, body, _, _ in uses:
            answer = {**STORED, "id": "resp_2"}
            assert (await ask(gate, KEY, method, f"{RESPONSES}{path}", body, answer=answer)).status == 200


REFERRING: list[tuple[str, dict[str, Any]]] = [
    (RESPONSES, {"model": "gpt-5", "input": "go on", "conversation": "conv_1"}),
    (RESPONSES, {"model": "gpt-5", "input": "go on", "conversation": {"id": "conv_1"}}),
    (f"{RESPONSES}/input_tokens", {"model": "gpt-5", "conversation": "conv_1"}),
]


@pytest.mark.parametrize(("path", "body"), REFERRING)
async def test_anothers_conversation_cannot_be_continued(path: str, body: dict[str, Any]) -> None:
    """Another caller's conversation gets 404 when it is named in a body, however it is written."""
    async with gateway(**BOTH) as gate:
        await conversation(gate, KEY)
        escaped = json.dumps(body).replace("conversation", "convers\\u0061tion").replace("conv_1", "conv\\u005f1")
        for data in (body, escaped.encode()):
            assert missing(await ask(gate, BOB, "POST", path, data), "Conversation", "conv_1")
        assert gate.upstream.untouched
        answer = {"id": "resp_9", "object": "response", "output": [], "status": "completed"}
        assert (await ask(gate, KEY, "POST", path, body, answer=answer)).status == 200


async def test_a_response_is_its_makers_from_its_first_event_on() -> None:
    """A response belongs to its maker from its first event on: the maker may cancel it while it runs, nobody else."""
    event = b'data: {"type":"response.created","response":{"id":"resp_1","status":"in_progress"}}\n\n'
    body = json.dumps({"model": "gpt-5", "input": "x", "stream": True}).encode()
    async with gateway(**BOTH, foreign_ids="refuse") as gate, gate.connected() as client:
        await client.send("POST", RESPONSES, body)
        call = await gate.upstream.call()
        await call.stream(event)
        await client.head()
        assert await client.piece() == event
        assert missing(await ask(gate, BOB, "GET", f"{RESPONSES}/resp_1"), "Response", "resp_1")
        assert (await ask(gate, KEY, "POST", f"{RESPONSES}/resp_1/cancel")).status == 200
        call.close()


async def test_ids_that_nobody_made_here() -> None:
    """Unknown ids pass, because they may be older than the gateway, or are refused if the settings say so."""
    async with gateway(**BOTH) as gate:
        assert (await ask(gate, BOB, "GET", f"{RESPONSES}/resp_old")).status == 200
    async with gateway(**BOTH, foreign_ids="refuse") as gate:
        assert missing(await ask(gate, BOB, "GET", f"{RESPONSES}/resp_old"), "Response", "resp_old")
        body = {"model": "gpt-5", "input": "x", "previous_response_id": "resp_old"}
        assert missing(await ask(gate, BOB, "POST", RESPONSES, body), "Response", "resp_old")
        item = {"model": "gpt-5", "input": [{"type": "item_reference", "id": "msg_old"}]}
        assert missing(await ask(gate, BOB, "POST", RESPONSES, item), "Item", "msg_old")
        assert gate.upstream.untouched
        await conversation(gate, BOB)
        assert (await ask(gate, BOB, "GET", f"{CONVERSATIONS}/conv_1")).status == 200


async def test_with_a_key_of_their_own_callers_reach_their_own_account() -> None:
    """Callers with a key of their own reach their own account, whose ids the gateway does not check."""
    own = {"X-AIBridge-Token": BOB, "Authorization": "Bearer sk-of-bob"}
    async with gateway(**BOTH, foreign_ids="refuse", providers={"byok": True}) as gate:
        await conversation(gate, KEY)
        for method, path in (("GET", f"{CONVERSATIONS}/conv_1"), ("DELETE", "/ai/openai/v1/models/ft:mine")):
            assert (await ask(gate, BOB, method, path, headers=own)).status == 200
        # An object made with an own key has no owner here.
        await ask(gate, BOB, "POST", CONVERSATIONS, {}, answer={"id": "conv_2"}, headers=own)
        assert missing(await ask(gate, BOB, "GET", f"{CONVERSATIONS}/conv_2"), "Conversation", "conv_2")


async def test_another_name_of_the_same_provider_is_no_way_around() -> None:
    """An object of one provider is protected through every other provider that calls the same API."""
    async with gateway(**BOTH, openai_names=("openai", "second")) as gate:
        await conversation(gate, KEY)
        refused = await ask(gate, BOB, "GET", "/ai/second/v1/conversations/conv_1")
        assert missing(refused, "Conversation", "conv_1")
        assert (await ask(gate, KEY, "GET", "/ai/second/v1/conversations/conv_1")).status == 200


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, '{"items": [], "conversation": "conv_1"}'.encode("utf-16")),
        ({"Content-Type": "application/x-www-form-urlencoded"}, b"conversation=conv_1"),
        ({}, b'["conv_1"]'),
    ],
)
async def test_bodies_that_cannot_be_read_go_nowhere(headers: dict[str, str], body: bytes) -> None:
    """A body that the gateway cannot read gets 400, because a provider might read it."""
    async with gateway(**BOTH) as gate:
        refused = await ask(gate, BOB, "POST", CONVERSATIONS, body, headers=headers)
        assert refused.status == 400
        assert gate.upstream.untouched


async def test_what_everybody_uses_stays() -> None:
    """A fine-tuned model belongs to all who share the key: deleting it needs the operator's permission."""
    method = "DELETE"
    async with gateway(**BOTH) as gate:
        refused = await ask(gate, KEY, method, "/ai/openai/v1/models/ft:gpt-5:org::1")
        assert refused.status == 403
        assert json.loads(refused.body)["error"]["code"] == "organisation_change"
        assert gate.upstream.untouched
    async with gateway(**BOTH, providers={"allow_organisation_changes": True}) as gate:
        assert (await ask(gate, KEY, method, "/ai/openai/v1/models/ft:gpt-5:org::1")).status == 200
