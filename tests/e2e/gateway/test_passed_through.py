"""Passed-through requests that change something at the provider: their caller, route and time are recorded."""

from __future__ import annotations

import asyncio
import json

import pytest

from fastapi_aibridge import Interception, Principal, Status

from .gateway import CountingRecorder, Gateway, gateway

pytestmark = pytest.mark.anyio


async def passed(gate: Gateway, method: str, path: str, status: int = 200) -> str | None:
    """Send a request; return the id of its record, or None if the response names none."""
    body = b"{}" if method == "POST" else b""
    asked = asyncio.create_task(gate.request(method, path, body, {"User-Agent": "codex_cli_rs/0.1"}))
    call = await gate.upstream.call()
    await call.answer(json.dumps({"id": "x"}).encode(), status=status)
    answer = await asked
    assert answer.status == status
    return answer.header("x-aibridge-interception-id")


@pytest.mark.parametrize(
    ("method", "path", "route"),
    [
        ("DELETE", "/v1/responses/resp_1", "DELETE /v1/responses/*"),
        ("POST", "/v1/responses/resp_1/cancel", "POST /v1/responses/*/cancel"),
        ("POST", "/v1/conversations", "POST /v1/conversations"),
        ("POST", "/v1/conversations/conv_1/items", "POST /v1/conversations/*/items"),
        ("DELETE", "/v1/conversations/conv_1/items/i", "DELETE /v1/conversations/*"),
        ("PUT", "/v1/files/f", "PUT /v1/files/*"),
        ("PATCH", "/v1/files/a/b/c", "PATCH /v1/files/*"),
    ],
)
async def test_what_changes_something_is_recorded(method: str, path: str, route: str) -> None:
    """A change is recorded under the listed path, of which there are few, and the response has the record's id."""
    async with gateway(providers={"pass_through": ["/v1/files/*"]}) as gate:
        id_ = await passed(gate, method, f"/ai/openai{path}")
        record = await gate.record()
        begun, ending = record.interception, record.ending
        assert (begun.id, begun.route, begun.model, begun.initiator_id) == (id_, route, "", "alice")
        assert (begun.client, begun.credential_kind) == ("Codex", "centralized")
        assert ending is not None
        assert (ending.status, ending.upstream_status, ending.error) == (Status.COMPLETED, 200, None)


async def test_a_change_belongs_to_the_caller_s_groups() -> None:
    """The record of a change has the caller's groups."""

    async def caller() -> Principal:
        return Principal("alice", groups=["research"])

    async with gateway(bridge={"principal": caller}) as gate:
        await passed(gate, "DELETE", "/ai/openai/v1/responses/resp_1")
        assert (await gate.record()).interception.groups == ("research",)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/openai/v1/models"),
        ("GET", "/openai/v1/responses/resp_1"),
        ("HEAD", "/openai/v1/files/f"),
        ("POST", "/openai/v1/responses/input_tokens"),
        ("POST", "/anthropic/v1/messages/count_tokens"),
        ("POST", "/anthropic/api/event_logging/batch"),
    ],
)
async def test_what_only_reads_is_not(method: str, path: str) -> None:
    """A request that only reads has no record, even if it is a POST."""
    async with gateway(providers={"pass_through": ["/v1/files/*"]}) as gate:
        assert await passed(gate, method, f"/ai{path}") is None
        assert isinstance(gate.recorder, CountingRecorder)
        assert gate.recorder.starts == []


async def test_a_change_that_the_provider_refuses() -> None:
    """A change that the provider refuses is recorded as failed, and an error of the gateway names the record, too."""
    async with gateway(providers={"connect_timeout": 1}) as gate:
        await passed(gate, "DELETE", "/ai/openai/v1/responses/resp_1", 404)
        asked = asyncio.create_task(gate.request("POST", "/ai/openai/v1/responses/resp_2/cancel", b"{}"))
        await (await gate.upstream.call()).write(b"no HTTP\r\n\r\n")
        answer = await asked
        first, second = await gate.records(2)
        assert (first.ending and first.ending.status, first.ending and first.ending.upstream_status) == ("failed", 404)
        assert answer.status == 502
        assert answer.header("x-aibridge-interception-id") == second.interception.id
        assert second.ending is not None
        assert second.ending.status == "failed"


class Failing(CountingRecorder):
    async def start(self, interception: Interception) -> None:
        raise OSError("the disk is full")


async def test_what_cannot_be_recorded_is_not_changed() -> None:
    """A change that cannot be recorded does not go upstream."""
    async with gateway(recorder=Failing()) as gate:
        answer = await gate.request("DELETE", "/ai/openai/v1/responses/resp_1")
        assert answer.status == 503
        assert gate.upstream.untouched


async def test_an_answer_without_a_body_that_tells_its_length() -> None:
    """A 304 whose head says how long the body would be is a whole response, and the connection stays usable."""
    async with gateway(providers={"pass_through": ["/v1/files/*"]}) as gate:
        for method in ("GET", "PUT"):
            asked = asyncio.create_task(gate.request(method, "/ai/openai/v1/files/f", b"", {"If-None-Match": "e"}))
            call = await gate.upstream.call()
            await call.head(304, [("ETag", "e"), ("Content-Type", "application/json"), ("Content-Length", "5000")])
            answer = await asked
            assert (answer.status, answer.body, answer.header("etag")) == (304, b"", "e")
            assert answer.header("content-length") is None
        record = await gate.record()
        assert record.ending is not None
        assert (record.ending.status, record.ending.upstream_status) == (Status.FAILED, 304)
