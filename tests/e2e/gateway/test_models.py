"""The models that a principal may use and see."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import pytest
from fastapi import Request

from fastapi_aibridge import Principal

from .client import Answer
from .gateway import CountingRecorder, Gateway, gateway

pytestmark = pytest.mark.anyio

OPENAI, ANTHROPIC = "/ai/openai", "/ai/anthropic"
ASKS = [
    f"{OPENAI}/v1/chat/completions",
    f"{OPENAI}/v1/responses",
    f"{OPENAI}/v1/responses/compact",
    f"{OPENAI}/v1/completions",
    f"{OPENAI}/v1/embeddings",
    f"{OPENAI}/v1/responses/input_tokens",
    f"{ANTHROPIC}/v1/messages",
    f"{ANTHROPIC}/v1/messages/count_tokens",
]


async def caller(request: Request) -> Principal:
    models = request.headers.get("x-models")
    return Principal("alice", models=None if models is None else json.loads(models))


BRIDGE = {"principal": caller}


def only(*patterns: str) -> dict[str, str]:
    return {"X-Models": json.dumps(patterns)}


async def passed(
    gate: Gateway,
    method: str,
    path: str,
    answer: Any,
    headers: dict[str, str],
    body: bytes = b"",
    *,
    status: int = 200,
    tag: bool = False,
) -> Answer:
    """Send a request that the upstream answers as given; return the client's response."""
    asked = asyncio.create_task(gate.request(method, path, body, headers))
    call = await gate.upstream.call()
    told = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    await call.answer(told, status=status, headers=[("ETag", '"1"')] if tag else ())
    return await asked


def check_refusal(answer: Answer, path: str) -> None:
    error = json.loads(answer.body)["error"]
    assert answer.status == 403
    assert answer.header("x-should-retry") == "false"
    assert error["type"] == "permission_error"
    assert "model_not_allowed" in error["message"]
    if path.startswith(OPENAI):
        assert error["code"] == "model_not_allowed"
    assert answer.header("x-aibridge-interception-id") is None


@pytest.mark.parametrize("path", ASKS)
async def test_a_model_that_is_not_allowed(path: str) -> None:
    """A forbidden model gets 403 in the provider's shape, before the provider is called and anything is recorded."""
    async with gateway(bridge=BRIDGE) as gate:
        body = {"model": "gpt-5-pro", "messages": [], "input": "x", "prompt": "x"}
        answer = await gate.request("POST", path, json.dumps(body).encode(), only("gpt-5", "gpt-5-mini*"))
        check_refusal(answer, path)
        assert gate.upstream.untouched
        assert isinstance(gate.recorder, CountingRecorder)
        assert gate.recorder.starts == []
        metrics = await gate.request("GET", "/ai/admin/metrics", key="t-admin")
        assert b'aibridge_refused_total{code="model_not_allowed"} 1.0' in metrics.body


@pytest.mark.parametrize("path", ASKS)
async def test_a_model_that_is_allowed(path: str) -> None:
    """A request for an allowed model goes upstream."""
    async with gateway(bridge=BRIDGE) as gate:
        body = json.dumps({"model": "gpt-5-mini-2026", "messages": [], "input": "x", "prompt": "x"}).encode()
        answer = await passed(gate, "POST", path, {}, only("gpt-5", "gpt-5-mini*"), body)
        assert answer.status == 200


@pytest.mark.parametrize(
    "more",
    [
        {"models": ["gpt-5-mini", "gpt-5-pro"]},
        {"fallbacks": ["gpt-5-pro"]},
        {"tools": [{"type": "image_generation", "model": "gpt-image-1"}]},
    ],
)
async def test_models_beside_the_first(more: dict[str, Any]) -> None:
    """Every other model that a request makes the provider run is checked, too."""
    async with gateway(bridge=BRIDGE) as gate:
        body = {"model": "gpt-5-mini", "input": "x", **more}
        path = f"{OPENAI}/v1/responses"
        check_refusal(await gate.request("POST", path, json.dumps(body).encode(), only("gpt-5-mini")), path)


async def test_a_stored_prompt_names_its_model_itself() -> None:
    """A stored prompt names its own model, so a restricted principal has to name an allowed one in the request."""
    async with gateway(bridge=BRIDGE) as gate:
        path, body = f"{OPENAI}/v1/responses", {"prompt": {"id": "pmpt_1"}}
        check_refusal(await gate.request("POST", path, json.dumps(body).encode(), only("gpt-*")), path)
        body["model"] = "gpt-5"  # type: ignore[assignment]
        assert (await passed(gate, "POST", path, {}, only("gpt-*"), json.dumps(body).encode())).status == 200


async def test_an_encoded_body() -> None:
    """An encoded body is decoded before it is checked, also on routes that pass it through."""
    async with gateway(bridge=BRIDGE) as gate:
        for path in ASKS:
            body = gzip.compress(b'{"model": "gpt-5-pro", "messages": [], "input": "x", "prompt": "x"}')
            headers = {**only("gpt-5"), "Content-Encoding": "gzip"}
            check_refusal(await gate.request("POST", path, body, headers), path)


async def test_the_next_request_has_the_new_models() -> None:
    """Each request is checked against its own principal's models, although the bridge is reused."""
    async with gateway(bridge=BRIDGE) as gate:
        path, body = f"{OPENAI}/v1/chat/completions", b'{"model": "gpt-5", "messages": []}'
        assert (await passed(gate, "POST", path, {}, only("gpt-5"), body)).status == 200
        check_refusal(await gate.request("POST", path, body, only("gpt-4")), path)
        assert (await passed(gate, "POST", path, {}, {}, body)).status == 200
        check_refusal(await gate.request("POST", path, body, only()), path)
        assert gate.aibridge.pool.metrics().keys_added == 1


LIST = {"object": "list", "data": [{"id": name, "object": "model"} for name in ("gpt-5", "gpt-5-pro", "o9")]}


async def test_openai_s_list() -> None:
    """The list shows only the caller's models, and is unchanged for a caller who may use all."""
    async with gateway(bridge=BRIDGE) as gate:
        path = f"{OPENAI}/v1/models"
        answer = await passed(gate, "GET", path, LIST, only("gpt-*"), tag=True)
        assert [one["id"] for one in json.loads(answer.body)["data"]] == ["gpt-5", "gpt-5-pro"]
        assert json.loads(answer.body)["object"] == "list"
        assert answer.header("content-length") == str(len(answer.body))
        assert answer.header("etag") is None
        answer = await passed(gate, "GET", path, LIST, {}, tag=True)
        assert (answer.body, answer.header("etag")) == (json.dumps(LIST).encode(), '"1"')


@pytest.mark.parametrize("models", [{}, only("gpt-*")])
async def test_lists_tell_what_the_limits_leave(models: dict[str, str]) -> None:
    """A list of models has the rate limit's headers, whether or not a model is left out of it."""
    async with gateway(bridge=BRIDGE, limits={"requests": 5}) as gate:
        answer = await passed(gate, "GET", f"{OPENAI}/v1/models", LIST, models)
        assert answer.header("x-ratelimit-remaining-requests") == "4"


@pytest.mark.parametrize(
    ("ids", "has_more", "patterns", "shown", "first", "last"),
    [
        (["a", "b", "c"], True, ["b"], ["b"], "b", "b"),
        (["a", "b", "c"], False, ["a", "c"], ["a", "c"], "a", "c"),
        (["a", "b"], True, ["z"], [], "a", "b"),
        (["a", "b"], False, ["z"], [], None, None),
        ([], False, ["z"], [], None, None),
    ],
)
async def test_anthropic_s_pages(
    ids: list[str], has_more: bool, patterns: list[str], shown: list[str], first: str | None, last: str | None
) -> None:
    """The cursors are those of the models shown; an empty page that others follow keeps the upstream's cursors."""
    page = {
        "data": [{"id": id_, "type": "model"} for id_ in ids],
        "has_more": has_more,
        "first_id": ids[0] if ids else None,
        "last_id": ids[-1] if ids else None,
    }
    async with gateway(bridge=BRIDGE) as gate:
        answer = await passed(gate, "GET", f"{ANTHROPIC}/v1/models?limit=3", page, only(*patterns))
        told = json.loads(answer.body)
        assert [one["id"] for one in told["data"]] == shown
        assert (told["has_more"], told["first_id"], told["last_id"]) == (has_more, first, last)


async def test_a_list_that_is_encoded_or_not_asked_for_again() -> None:
    """The gateway requests a plain and complete list, and still reads an encoded one."""
    async with gateway(bridge=BRIDGE) as gate:
        path, headers = f"{OPENAI}/v1/models", {**only("o9"), "Accept-Encoding": "gzip", "If-None-Match": '"1"'}
        asked = asyncio.create_task(gate.request("GET", path, headers=headers))
        call = await gate.upstream.call()
        assert call.header("accept-encoding") == "identity"
        assert "if-none-match" not in call.header_names
        await call.answer(gzip.compress(json.dumps(LIST).encode()), headers=[("Content-Encoding", "gzip")])
        answer = await asked
        assert [one["id"] for one in json.loads(answer.body)["data"]] == ["o9"]
        assert answer.header("content-encoding") is None


@pytest.mark.parametrize("body", [b"", b"no JSON", b"[]", b"{}", b'{"data": 5}', b'{"data": [' + b" " * 5_000_000])
async def test_a_list_that_cannot_be_read(body: bytes) -> None:
    """A list that cannot be read is not relayed, because it may name models that the caller must not see."""
    async with gateway(bridge=BRIDGE) as gate:
        answer = await passed(gate, "GET", f"{OPENAI}/v1/models", body, only("o9"))
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (502, "unreadable_models")


@pytest.mark.parametrize("status", [401, 404, 500])
async def test_an_error_in_the_place_of_a_list(status: int) -> None:
    """An error instead of a list is passed through unchanged."""
    async with gateway(bridge=BRIDGE, providers={"max_retries": 0}) as gate:
        answer = await passed(gate, "GET", f"{OPENAI}/v1/models", b'{"error": {}}', only("o9"), status=status)
        assert (answer.status, answer.body) == (status, b'{"error": {}}')


async def test_other_lists() -> None:
    """Codex's own list names models by a slug; entries without a name are left out."""
    async with gateway(bridge=BRIDGE) as gate:
        listed = {"models": [{"slug": "gpt-5"}, {"slug": "o9"}, {"x": 1}, "o9", 5]}
        answer = await passed(gate, "GET", f"{OPENAI}/v1/models?client_version=1", listed, only("o9"))
        assert json.loads(answer.body) == {"models": [{"slug": "o9"}, "o9"]}


@pytest.mark.parametrize("provider", [OPENAI, ANTHROPIC])
@pytest.mark.parametrize("name", ["gpt-5-pro", "gpt%2D5-pro", "org/model", "org%2Fmodel"])
async def test_one_model(provider: str, name: str) -> None:
    """A forbidden model gets 404, as an unknown one does, however its name is written."""
    async with gateway(bridge=BRIDGE) as gate:
        path = f"{provider}/v1/models/{name}"
        for method in ("GET", "HEAD"):
            asked = gate.request(method, path, headers=only("gpt-5", "model", "org"))
            assert (await asked).status == 404
        assert gate.upstream.untouched
        assert (await passed(gate, "GET", path, {"id": "x"}, only("gpt-5-*", "org/*"))).status == 200


async def test_a_model_is_not_deleted_by_who_may_not_use_it() -> None:
    """Deleting a forbidden model gets 403, even if the settings let callers delete models."""
    async with gateway(bridge=BRIDGE, openai_names=("openai",), providers={"allow_organisation_changes": True}) as gate:
        path = f"{OPENAI}/v1/models/ft:gpt-5:x"
        check_refusal(await gate.request("DELETE", path, headers=only("gpt-5")), path)


async def test_paths_that_the_settings_add() -> None:
    """Models are found in bodies of all formats on paths that the settings add."""
    form = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n--b--\r\n'
    batch = b'{"requests": [{"custom_id": "1", "params": {"model": "gpt-5-pro"}}]}'
    async with gateway(bridge=BRIDGE, providers={"pass_through": ["/v1/audio/*", "/v1/batches", "/v1/files"]}) as gate:
        for path, body in (("audio/transcriptions", form), ("batches", batch), ("files", b'{"body":{"model":"x"}}\n')):
            check_refusal(await gate.request("POST", f"{OPENAI}/v1/{path}", body, only("gpt-5")), OPENAI)
        answer = await passed(gate, "POST", f"{OPENAI}/v1/batches", {}, only("gpt-*"), batch)
        assert answer.status == 200
