"""Text that databases refuse, in every place that clients, models and apps can put it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import pytest

from fastapi_aibridge import Principal
from fastapi_aibridge.exchange.client import MAX_USER_AGENT
from fastapi_aibridge.testing import Received, Reply, ToolCall
from tests.e2e.gateway import client

from .serving import BODIES, CHAT, MESSAGES, RESPONSES, gateway

pytestmark = pytest.mark.anyio

HOSTILE = [
    "a\0b",
    "\0",
    "a\ud800b",
    "\udfff\0\ud800",
    "\U0001f600\0",
    "\x01\x7f\x80\u2028",
    "\N{REPLACEMENT CHARACTER}",
]
each = pytest.mark.parametrize("path", [CHAT, RESPONSES, MESSAGES], ids=["chat", "responses", "messages"])


def hostile_call(text: str) -> Any:
    def reply(received: Received) -> Reply:
        arguments = json.dumps({"k\0": text}) if "\0" in text else json.dumps({"k": text})
        return Reply(thinking="thought\0", tool_calls=[ToolCall("tool\0", arguments)])

    return reply


@each
async def test_in_models_prompts_and_arguments(url: str, path: str) -> None:
    """A request with text that cannot be stored is served, and recorded completely with replacements.

    A lone surrogate in a request is no JSON that providers take, so it gets 400, as any other invalid body does.
    """
    async with gateway(url) as gate:
        for number, text in enumerate(HOSTILE):
            gate.provider.script = hostile_call(text)
            lone = any("\ud800" <= character <= "\udfff" for character in text)
            model, plain = f"m{number}{text}", f"m{number}"
            for stream in (False, True):
                answer = await gate.ask(path, model=model, prompt=f"hi {text}", stream=stream)
                assert answer.status_code == (400 if lone else 200), answer.text
                answer = await gate.ask(path, model=plain, stream=stream)
                assert answer.status_code == 200, answer.text
            kept = model.replace("\0", "\N{REPLACEMENT CHARACTER}")
            records = await gate.listing(model=plain) + ([] if lone else await gate.listing(model=kept))
            assert len(records) == (2 if lone else 4)
            for one in records:
                assert one["status"] == "completed"
                assert len(one["token_usages"]) == 1
                assert [call["tool"][:4] for call in one["tool_usages"]] == ["tool"]
            if not lone:
                assert {one["prompts"][0]["text"] for one in records} == {"hi", f"hi {text}"}
                assert [row["calls"] for row in (await gate.json("/usage", model=kept))["items"]] == [2]
        for kind in ("jsonl", "csv"):
            assert (await gate.read("/interceptions/export", format=kind)).status_code == 200
        assert (await gate.read("/metrics")).status_code == 200


async def test_in_headers(url: str) -> None:
    """Invalid bytes in user agent and session are recorded as far as possible; NUL is refused."""
    async with gateway(url) as gate:
        port = int(gate.url.rpartition(":")[2])
        agents = ["caf\xe9/1.0", "\xff\xfe", "x" * 4000, "codex_cli_rs/1.0 \x80"]
        for agent in agents:
            headers = {"User-Agent": agent, "Session_id": f"s{agent}"}
            body = json.dumps({"model": "m", **BODIES[CHAT]("hi")}).encode()
            assert (await client.request(port, "POST", CHAT, body, headers, "k-alice")).status == 200
        for agent in ("a\0b", "\0"):
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                answer = await client.request(port, "POST", CHAT, body, {"User-Agent": agent}, "k-alice")
                assert answer.status == 400
        records = await gate.listing()
        assert {one["user_agent"] for one in records} == {agent[:MAX_USER_AGENT] for agent in agents}
        assert sorted(one["truncated"] for one in records) == [False, False, False, True]
        assert {one["status"] for one in records} == {"completed"}


async def test_in_what_the_app_says_of_the_principal(url: str) -> None:
    """A principal that cannot be recorded is refused before the provider is called, and the next request is served."""
    texts = iter(HOSTILE)

    async def principal() -> Principal:
        text = next(texts, "plain")
        return Principal(f"user {text}", f"key {text}", metadata={"name": text, text: [text], "n": 2**40})

    async with gateway(url, bridge={"principal": principal}) as gate:
        answers = [(await gate.ask(stream=True)).status_code for _ in HOSTILE]
        refused = [any(one == "\0" or "\ud800" <= one <= "\udfff" for one in text) for text in HOSTILE]
        assert [status == 200 for status in answers] == [not one for one in refused]
        records = await gate.listing()
        assert len(records) == len(gate.provider.received) == refused.count(False)
        for one in records:
            assert one["status"] == "completed"
            assert one in await gate.listing(initiator_id=one["initiator_id"])
        assert (await gate.ask()).status_code == 200
