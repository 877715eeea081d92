"""Requests of coding agents, recorded from their npm packages against a gateway.

The recordings leave out the agents' own texts, credentials, hosts and headers that HTTP itself needs. Each names the
client, session and user prompts that its interception must have in the record.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from ..gateway.bodies import CHAT, MESSAGES, RESPONSES, WIRES, Wire
from ..gateway.client import KEY
from ..gateway.gateway import gateway
from ..gateway.upstream import Call

pytestmark = pytest.mark.anyio

RECORDED: list[dict[str, Any]] = json.loads(Path(__file__).with_name("recorded.json").read_text(encoding="utf-8"))
IDS = [f"{one['client']} {one['path']} {number}" for number, one in enumerate(RECORDED)]
STAYS = ("sec-", "authorization", "x-api-key", "host", "connection", "content-length", "accept-encoding", "transfer-")


def wire_of(path: str) -> Wire:
    return next(wire for wire in WIRES if path.partition("?")[0].endswith(wire.path))


@pytest.mark.parametrize("recorded", RECORDED, ids=IDS)
async def test_the_provider_sees_the_client_and_the_record_knows_it(recorded: dict[str, Any]) -> None:
    """All headers except credentials and browser headers go upstream; client name, session and prompts are recorded."""
    async with gateway() as gate, gate.connected() as client:
        wire, body = wire_of(recorded["path"]), json.dumps(recorded["body"]).encode()
        bearer = recorded["credential"] == "authorization"
        credential = {"authorization": f"Bearer {KEY}"} if bearer else {"x-api-key": KEY}
        await client.send("POST", f"/ai/{recorded['path']}", body, {**recorded["headers"], **credential}, key=None)
        call = await gate.upstream.call()
        sent = {name: value for name, value in recorded["headers"].items() if not name.startswith(STAYS)}
        assert {name: call.header(name) for name in sent} == sent
        assert KEY not in str(call.headers)
        assert not [name for name in call.header_names if name.startswith("sec-")]
        assert json.loads(call.body) == recorded["body"]
        await call.stream(*wire.events)
        await call.end()
        assert (await client.answer()).status == 200
        record = await gate.record()
        assert (record.interception.client, record.interception.session_id) == (
            recorded["recorded_as"],
            recorded["session"],
        )
        assert [prompt.text for prompt in record.facts.prompts if prompt.source == "user"] == recorded["said"]


class _Sent:
    """The headers that an SDK sends."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}

    async def see(self, request: httpx2.Request) -> None:
        self.headers = {name.lower(): value for name, value in request.headers.items()}


@asynccontextmanager
async def asking(sdk: str, wire: Wire, port: int, sent: _Sent) -> AsyncIterator[asyncio.Task[Any]]:
    async with httpx2.AsyncClient(event_hooks={"request": [sent.see]}) as http:
        url = f"http://127.0.0.1:{port}/ai/{wire.provider}"
        body = {**json.loads(wire.ask())}
        if sdk == "anthropic":
            client: Any = anthropic.AsyncAnthropic(api_key=KEY, base_url=url, max_retries=0, http_client=http)
            call = client.messages.create(**body)
        else:
            client = openai.AsyncOpenAI(api_key=KEY, base_url=f"{url}/v1", max_retries=0, http_client=http)
            call = client.responses.create(**body) if wire is RESPONSES else client.chat.completions.create(**body)
        task = asyncio.create_task(call)
        yield task
        await task


@pytest.mark.parametrize(
    ("sdk", "wire", "name"),
    [
        ("openai", CHAT, "OpenAI/Python"),
        ("openai", RESPONSES, "OpenAI/Python"),
        ("anthropic", MESSAGES, "Anthropic/Python"),
    ],
    ids=["chat", "responses", "messages"],
)
async def test_the_vendors_sdks(sdk: str, wire: Wire, name: str) -> None:
    """Every header that an installed SDK sends, except the credential, goes upstream, and the record names the SDK."""
    sent = _Sent()
    async with gateway() as gate:
        async with asking(sdk, wire, gate.port, sent):
            call: Call = await gate.upstream.call()
            await call.answer(wire.blocking)
        kept = {one: value for one, value in sent.headers.items() if not one.startswith(STAYS)}
        assert any(one.startswith("x-stainless-") for one in kept)
        assert {one: call.header(one) for one in kept} == kept
        assert (await gate.record()).interception.client == name


@pytest.mark.parametrize("credential", ["authorization", "x-api-key"])
async def test_a_wrong_key_is_told_in_words_that_claude_code_shows(credential: str) -> None:
    """The message of a 401 does not mention `x-api-key`, or Claude Code would replace it with a request to log in."""
    async with gateway() as gate:
        answer = await gate.request("POST", MESSAGES.target, MESSAGES.ask(), {credential: "Bearer wrong"}, key=None)
        assert (answer.status, answer.header("x-should-retry")) == (401, "false")
        message = json.loads(answer.body)["error"]["message"]
        assert "key" in message
        assert "x-api-key" not in message.lower()
