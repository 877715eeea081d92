"""Injected tools with the same names as tools of the client, as behind another gateway."""

from __future__ import annotations

from typing import Any

import pytest

from fastapi_aibridge.testing import Reply

from .driving import CHAT, KINDS, Kind, call, play


def named(kind: Kind, name: str) -> dict[str, Any]:
    """Return the client's tool under another name."""
    own = dict(kind.own_tool)
    return {**own, "function": {**own["function"], "name": name}} if kind is CHAT else {**own, "name": name}


def names(kind: Kind, body: dict[str, Any]) -> list[str]:
    return [(tool["function"] if kind is CHAT else tool)["name"] for tool in body["tools"]]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("streamed", [False, True])
def test_the_clients_tool_takes_the_place_of_an_injected_one(kind: Kind, streamed: bool) -> None:
    """The client's tool and its calls take precedence, because providers refuse duplicate names."""
    own = named(kind, "bmcp_box_echo")
    played = play(kind, [Reply(tool_calls=[call()])], streamed=streamed, tools=[own])
    (body,) = played.bodies
    assert names(kind, body) == ["bmcp_box_time", "bmcp_box_echo"]
    assert body["tools"][-1] == own
    assert played.calls == []
    assert [name for _, name, _ in played.seen().calls] == ["bmcp_box_echo"]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_other_injected_tools_are_still_run(kind: Kind) -> None:
    """Injected tools without a clash are still offered and run."""
    replies = [Reply(tool_calls=[call(tool="time")]), Reply(text="Done.")]
    played = play(kind, replies, streamed=False, tools=[named(kind, "bmcp_box_echo")])
    assert [one.name for one in played.calls] == ["bmcp_box_time"]
    assert played.seen().text == "Done."


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_client_that_has_them_all_gets_none(kind: Kind) -> None:
    """If all injected tools clash, the request is sent unchanged."""
    tools = [named(kind, "bmcp_box_time"), named(kind, "bmcp_box_echo")]
    played = play(kind, [Reply(text="Hi.")], streamed=False, tools=tools)
    assert played.asked == [played.request]
