"""Ids of tool calls: whatever ids a provider gives, each injected call has one of its own when it goes back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fastapi_aibridge.formats.rounds import AnsweredCall, ToolCall
from fastapi_aibridge.testing import Reply
from fastapi_aibridge.tools import Text, ToolResult

from .driving import CHAT, KINDS, MESSAGES, Kind, Played, play, remembering
from .test_mixed_turns import history

FINAL = Reply(text="Done.")


def echoed(one: ToolCall) -> AnsweredCall:
    """Return the call's own argument as its result."""
    arguments = one.parsed() or {}
    return AnsweredCall(call=one, result=ToolResult(content=(Text(f"said {arguments['text']}"),)))


def answer(kind: Kind, *calls: tuple[str | None, str, str]) -> bytes:
    """Return a response with these calls: id (None where it has none), tool, and the argument `text`."""
    arguments = [json.dumps({"text": text}) for _, _, text in calls]
    if kind is CHAT:
        given: list[dict[str, Any]] = [
            {"id": id_, "type": "function", "function": {"name": tool, "arguments": written}}
            for (id_, tool, _), written in zip(calls, arguments, strict=True)
        ]
        message = {"role": "assistant", "content": None, "tool_calls": [_without_null(one) for one in given]}
        whole: Any = {"id": "c", "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    elif kind is MESSAGES:
        blocks = [{"type": "tool_use", "id": id_, "name": tool, "input": {"text": text}} for id_, tool, text in calls]
        whole = {
            "id": "m",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": [_without_null(one) for one in blocks],
            "stop_reason": "tool_use",
            "usage": {"input_tokens": 1, "output_tokens": 1},
        }
    else:
        items = [
            {"type": "function_call", "call_id": id_, "name": tool, "arguments": written}
            for (id_, tool, _), written in zip(calls, arguments, strict=True)
        ]
        output = [{"id": f"fc_{number}", **_without_null(one)} for number, one in enumerate(items)]
        whole = {"id": "r", "object": "response", "status": "completed", "output": output}
    return json.dumps(whole).encode()


def _without_null(value: dict[str, Any]) -> dict[str, Any]:
    return {key: one for key, one in value.items() if one is not None}


def pairs(kind: Kind, body: dict[str, Any]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return the ids and arguments of a request's calls, and the ids and texts of their results."""
    calls: list[tuple[str, Any]] = []
    results: list[tuple[str, Any]] = []
    if kind is CHAT:
        for message in body["messages"]:
            calls += [(one["id"], one["function"]["arguments"]) for one in message.get("tool_calls", [])]
            results += [(message["tool_call_id"], message["content"])] if message["role"] == "tool" else []
    elif kind is MESSAGES:
        for message in body["messages"]:
            for block in message["content"] if isinstance(message["content"], list) else []:
                if block["type"] == "tool_use":
                    calls.append((block["id"], json.dumps(block["input"])))
                elif block["type"] == "tool_result":
                    said = block["content"]
                    results.append((block["tool_use_id"], said if isinstance(said, str) else said[0]["text"]))
    else:
        for item in body["input"]:
            if item.get("type") == "function_call":
                calls.append((item["call_id"], item["arguments"]))
            elif item.get("type") == "function_call_output":
                results.append((item["call_id"], item["output"]))
    return calls, results


def assert_told_apart(kind: Kind, body: dict[str, Any], texts: list[str]) -> None:
    calls, results = pairs(kind, body)
    ids = [id_ for id_, _ in calls]
    assert len(set(ids)) == len(texts)
    assert all(ids)
    assert sorted(ids) == sorted(id_ for id_, _ in results)
    said = dict(results)
    assert [json.loads(arguments)["text"] for _, arguments in calls] == texts
    assert [said[id_] for id_, _ in calls] == [f"said {text}" for text in texts]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("id_", [None, "", "same_id_twice"])
def test_calls_that_share_an_id_or_have_none(kind: Kind, id_: str | None) -> None:
    """Two calls with the same id or without one go back with an id each, and each with its own result."""
    first = answer(kind, (id_, "bmcp_box_echo", "1"), (id_, "bmcp_box_echo", "2"))
    played = play(kind, [first, FINAL], streamed=False, respond=echoed)
    assert_told_apart(kind, played.bodies[1], ["1", "2"])


@pytest.mark.parametrize("kind", [CHAT, MESSAGES], ids=str)
def test_an_id_that_comes_again_in_a_later_round(kind: Kind) -> None:
    """An id of an earlier round is not used again, because a history may have each id once.

    In Responses it stays: a provider that has stored the call knows it by that id.
    """
    first, second = (answer(kind, ("functions.echo:0", "bmcp_box_echo", text)) for text in "12")
    played = play(kind, [first, second, FINAL], streamed=False, respond=echoed)
    assert_told_apart(kind, played.bodies[2], ["1", "2"])


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("id_", [None, "", "same_id_twice", "call_own"])
def test_a_mixed_turn_whose_injected_calls_share_an_id_or_have_none(kind: Kind, id_: str | None) -> None:
    """Beside a call of the client's own, such injected calls are hidden and put back later, each with its result."""
    memory = remembering()
    calls = [(id_, "bmcp_box_echo", "1"), (id_, "bmcp_box_echo", "2"), ("call_own", "read", "3")]
    played = play(kind, [answer(kind, *calls)], streamed=False, memory=memory, respond=echoed, tools=[kind.own_tool])
    assert b"bmcp_" not in played.body
    asked = history(played, tools=[kind.own_tool])
    again: Played = play(kind, [FINAL], streamed=False, memory=memory, **asked)
    calls_, results = pairs(kind, again.bodies[0])
    assert len({one for one, _ in calls_}) == 3
    assert sorted(one for one, _ in calls_) == sorted(one for one, _ in results)
    said = dict(results)
    texts = {json.loads(arguments)["text"]: said[one] for one, arguments in calls_}
    assert texts == {"1": "said 1", "2": "said 2", "3": "mine"}
