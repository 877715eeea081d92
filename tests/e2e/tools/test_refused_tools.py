"""Injection never makes a request fail that would succeed without it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fastapi_aibridge import Status
from fastapi_aibridge.exchange import refused_additions
from fastapi_aibridge.formats.large_text import LARGE
from fastapi_aibridge.testing import Received, Reply

from ...formats.rounds.driving import CHAT, RESPONSES, Kind
from ...mcp.servers import ToolServer
from .harness import BOB, GatewayHarness, harness, tool

pytestmark = pytest.mark.anyio
FINE = Reply("Fine.")


def picky(*, status: int = 400, unless: str = "never") -> Any:
    """Make a provider that refuses tools, always or only beside an option."""

    def script(received: Received) -> Reply:
        body = received.json()
        if "tools" in body and (unless == "never" or unless in body):
            return Reply(status=status, error="this model does not support tools")
        return FINE

    return script


def offered(home: GatewayHarness) -> list[bool]:
    return ["tools" in body for body in home.upstream]


@pytest.mark.parametrize("status", [400, 404, 413, 422])
async def test_what_is_refused_with_tools_goes_up_without(
    kind: Kind, streamed: bool, server: ToolServer, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A request that is refused with tools goes up without them, as the client wrote it.

    The next one of the same caller, model and options does so at once. The log says so once, and the metrics count it.
    """
    async with harness(picky(status=status), {"box": server.url}) as home:
        for _ in range(2):
            assert (await home.ask(kind, streamed=streamed)).text == "Fine."
        assert offered(home) == [True, False, False]
        asked = json.loads(kind.request(streamed=streamed))
        assert home.upstream[1] == asked
        assert "aibridge_additions_refused_total" in await home.metrics()
        assert caplog.text.count("with the gateway's own tools, and takes it without") == 1
        records = home.recorder.records
        assert [one.ending.status for one in records if one.ending] == [Status.COMPLETED] * 2
        assert [one.ending.error for one in records if one.ending] == [None] * 2


async def test_only_what_was_refused_goes_without(server: ToolServer) -> None:
    """Another option, model or caller still gets tools, so nobody can take them from others."""
    async with harness(picky(unless="response_format"), {"box": server.url}) as home:
        json_only: dict[str, Any] = {"response_format": {"type": "json_object"}}
        assert (await home.ask(CHAT, streamed=False, **json_only)).text == "Fine."
        assert offered(home) == [True, False]
        await home.ask(CHAT, streamed=False)
        assert offered(home)[2:] == [True]
        await home.ask(CHAT, streamed=False, **json_only)
        assert offered(home)[3:] == [False]
        await home.ask(CHAT, streamed=False, key=BOB, **json_only)
        assert offered(home)[4:] == [True, False]
        await home.ask(CHAT, streamed=False, **{**json_only, "model": "other"})
        assert offered(home)[6:] == [True, False]


async def test_it_is_tried_again_after_a_while(server: ToolServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tools are tried again after a while, because a provider may have learnt to take them."""
    monkeypatch.setattr(refused_additions, "REMEMBERED", 0.0)
    async with harness(picky(), {"box": server.url}) as home:
        for _ in range(2):
            await home.ask(CHAT, streamed=False)
        assert offered(home) == [True, False, True, False]


@pytest.mark.parametrize("status", [401, 402, 403, 429, 500])
async def test_what_says_nothing_of_the_request_is_not_repeated(kind: Kind, server: ToolServer, status: int) -> None:
    """An error of a key, an account, a rate or the provider itself is not repeated without tools."""
    async with harness(Reply(status=status, error="no"), {"box": server.url}) as home:
        assert (await home.request(kind, streamed=False)).status == status
        assert offered(home) == [True]


async def test_what_is_refused_without_tools_too_is_answered_with_that(server: ToolServer) -> None:
    """A request that is refused without tools, too, gets that refusal, and nothing is remembered."""
    replies = [Reply(status=400, error="with tools"), Reply(status=400, error="without"), FINE]
    async with harness(replies, {"box": server.url}) as home:
        answer = await home.request(CHAT, streamed=False)
        assert (answer.status, json.loads(answer.body)["error"]["message"]) == (400, "without")
        record = await home.record()
        assert record.ending is not None
        assert "without" in (record.ending.error or "")
        await home.ask(CHAT, streamed=False)
        assert offered(home) == [True, False, True]


async def test_a_later_round_is_not_begun_again(server: ToolServer) -> None:
    """A refusal in a later round is not repeated, because the provider has taken the tools before."""
    replies = [Reply(tool_calls=[tool("echo", "c1")]), Reply(status=400, error="no")]
    async with harness(replies, {"box": server.url}) as home:
        assert (await home.request(RESPONSES, streamed=False)).status == 400
        assert offered(home) == [True, True]


def _failing(status: int, words: str) -> Any:
    def script(received: Received) -> Reply:
        return Reply(status=status, error=words) if "tools" in received.json() else FINE

    return script


@pytest.mark.parametrize("status", [500, 501])
@pytest.mark.parametrize("words", ["tools param requires --jinja flag", "this model does not support function calling"])
async def test_a_failure_that_speaks_of_tools_is_no_failure_without_them(
    kind: Kind, streamed: bool, server: ToolServer, status: int, words: str
) -> None:
    """A server error that names tools, as from llama.cpp, is repeated without them; the next request has none."""
    async with harness(_failing(status, words), {"box": server.url}) as home:
        for _ in range(2):
            assert (await home.ask(kind, streamed=streamed)).text == "Fine."
        assert offered(home) == [True, False, False]


@pytest.mark.parametrize(
    ("status", "words", "members"),
    [
        (500, "out of memory", {}),
        (503, "tools are being loaded", {}),
        (500, "tools param requires --jinja flag", {"tools": [CHAT.own_tool]}),
    ],
)
async def test_other_failures_are_passed_on(
    server: ToolServer, status: int, words: str, members: dict[str, Any]
) -> None:
    """Other server errors are passed on, and so are those of a request with tools of the client's own."""
    async with harness(_failing(status, words), {"box": server.url}) as home:
        answer = await home.request(CHAT, streamed=False, **members)
        assert (answer.status, json.loads(answer.body)["error"]["message"]) == (status, words)
        assert offered(home) == [True]


@pytest.mark.parametrize("own", [False, True])
async def test_a_large_request_is_read_like_a_small_one(server: ToolServer, *, own: bool) -> None:
    """After a failure that speaks of tools a large request is searched for tools of its own, like a small one."""
    members: dict[str, Any] = {"metadata": {"long": "x" * 2 * LARGE}}
    if own:
        members["tools"] = [CHAT.own_tool]
    async with harness(_failing(500, "tools param requires --jinja flag"), {"box": server.url}) as home:
        answer = await home.request(CHAT, streamed=False, **members)
        assert answer.status == (500 if own else 200)
        assert offered(home) == ([True] if own else [True, False])


async def test_a_provider_that_keeps_nothing_gets_nothing_to_look_up(streamed: bool, server: ToolServer) -> None:
    """At a provider without retention the second round is repeated without the ids that it does not know."""

    def script(received: Received) -> Reply:
        items = (
            [one for one in received.json()["input"] if isinstance(one, dict)]
            if received.json()["input"] != "hi"
            else []
        )
        if named := [one["id"] for one in items if one.get("id") and not one.get("encrypted_content")]:
            return Reply(status=404, error=f"Item with id '{named[0]}' not found.")
        return FINE if items else Reply(thinking="Hm.", tool_calls=[tool("echo", "c1")])

    async with harness(script, {"box": server.url}) as home:
        assert (await home.ask(RESPONSES, streamed=streamed)).text == "Fine."
        assert offered(home) == [True, True, True]
        assert [one.get("type") for one in home.upstream[2]["input"]][-2:] == ["function_call", "function_call_output"]
        record = await home.record()
        assert record.ending is not None
        assert (record.ending.status, record.ending.error) == (Status.COMPLETED, None)
        assert len(server.calls) == 1
