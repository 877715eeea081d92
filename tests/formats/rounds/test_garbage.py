"""Upstreams that send unknown things: the rounds never fail, and no bytes are invented."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_aibridge.exchange.tool_memory import ToolMemory
from fastapi_aibridge.formats.scanner import finish
from fastapi_aibridge.testing import Reply

from ..observing import PLAUSIBLE, blocks, lean
from ..parsing import parse
from .driving import KINDS, OWNER, TOOLS, Kind, answer_to, call, encoded, own_call, play, woven

ODD = st.sampled_from(["bmcp_box_echo", "tool_use", "function_call", "tool_calls", "completed", "assistant", "user"])


def begun(kind: Kind, body: bytes, memory: ToolMemory) -> Any:
    return woven(kind, body, memory.of(OWNER))


@lean
@given(st.data())
def test_odd_events_between_real_ones(data: st.DataObject) -> None:
    """With any events in between, the calls of a round can be read and answered, and the response ended."""
    kind = data.draw(st.sampled_from(KINDS))
    rounds = begun(kind, kind.request(streamed=True), ToolMemory())
    for number in range(2):
        calls = [call(f"c{number}"), *([own_call()] if data.draw(st.booleans()) else [])]
        events = encoded(kind, Reply(text="x", tool_calls=calls), rounds.body, streamed=True)
        for _ in range(data.draw(st.integers(1, 6))):
            odd = data.draw(blocks(PLAUSIBLE | ODD))
            if data.draw(st.booleans()):
                at = data.draw(st.integers(0, len(events) - 1))
                events[at] = mangled(data, events[at])
            events.insert(data.draw(st.integers(0, len(events))), odd)
        for event in events:
            rounds.stream(event)
        rounds.held([])
        results = [answer_to(one) for one in rounds.calls()]
        if rounds.client_calls() or not results:
            break
        finish(rounds.go_on(results, last=number == 1))
        json.loads(rounds.body)
    rounds.end()
    assert rounds.alias is None or all(rounds.alias)


def mangled(data: st.DataObject, event: bytes) -> bytes:
    """Return the event with one of its members replaced."""
    prefix, _, written = event.partition(b"data: ")
    try:
        value = json.loads(written)
    except ValueError:
        return event
    at = value
    while isinstance(at, dict | list) and at:
        key = data.draw(st.sampled_from(sorted(at))) if isinstance(at, dict) else 0
        if not isinstance(at[key], dict | list) or data.draw(st.integers(0, 3)) == 0:
            at[key] = data.draw(PLAUSIBLE)
            break
        at = at[key]
    return prefix + b"data: " + json.dumps(value).encode("utf-8", "replace") + b"\n\n"


@lean
@given(st.data())
def test_odd_answers(data: st.DataObject) -> None:
    """Any blocking response can be relayed and continued."""
    kind = data.draw(st.sampled_from(KINDS))
    rounds = begun(kind, kind.request(streamed=False), ToolMemory())
    (real,) = encoded(kind, Reply(text="x", tool_calls=[call(), own_call()]), rounds.body, streamed=False)
    answer = mangled(data, b"data: " + real).removeprefix(b"data: ")
    if data.draw(st.booleans()):
        answer = json.dumps(data.draw(PLAUSIBLE)).encode("utf-8", "replace")
    rounds.blocking(answer)
    results = [answer_to(one) for one in rounds.calls()]
    rounds.client_calls()
    rounds.held(results)
    json.loads(rounds.end())
    if results:
        finish(rounds.go_on(results, last=False))
        json.loads(rounds.body)


@lean
@given(st.data())
def test_odd_requests(data: st.DataObject) -> None:
    """A meaningless request is sent with the injected tools before its own and can be continued."""
    kind = data.draw(st.sampled_from(KINDS))
    memory = ToolMemory()
    play(kind, [Reply(tool_calls=[call(), own_call("user")])], streamed=False, memory=memory.of(OWNER))
    value = {"model": "m", **{name: data.draw(PLAUSIBLE) for name in ("messages", "input", "tools", "tool_choice")}}
    value["previous_response_id"] = data.draw(PLAUSIBLE)
    body = json.dumps(value).encode("utf-8", "replace")
    parse(kind.format, body)
    rounds = begun(kind, body, memory)
    names = [one.get("function", one)["name"] for one in json.loads(rounds.body)["tools"][:2]]
    assert names == [tool.name for tool in TOOLS]
    finish(rounds.go_on([], last=True))
    json.loads(rounds.body)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("garbage", [b"", b"<html>busy</html>", b"{}", b"[1]", b'{"error":{"message":"no"}}'])
def test_an_answer_that_is_no_message_comes_through_as_it_is(kind: Kind, garbage: bytes) -> None:
    """A response that is no message is relayed unchanged, after a round too."""
    assert play(kind, [garbage], streamed=False).body == garbage
    played = play(kind, [Reply(text="x", tool_calls=[call()]), garbage], streamed=False)
    assert len(played.asked) == 2
    assert played.body == garbage
