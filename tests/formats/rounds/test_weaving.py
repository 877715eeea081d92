"""Behaviour common to all formats: several upstream messages become the one that the client sees."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_aibridge.testing import Reply, Usage
from fastapi_aibridge.tools import Tool

from ..parsing import parse
from .driving import CHAT, KINDS, MESSAGES, NAMES, RESPONSES, TOOLS, Kind, Played, call, lean, own_call, play

WORDS = st.sampled_from(["", "Hello.", "Let me see", "a b c", "Line\n", "ünï 🎈"])
ASKED: dict[str, Any] = {"stream_options": {"include_usage": True}}
STOP = {CHAT: "stop", RESPONSES: "completed", MESSAGES: "end_turn"}
CALLS = {CHAT: "tool_calls", RESPONSES: "completed", MESSAGES: "tool_use"}
CUT = {CHAT: "length", RESPONSES: "incomplete", MESSAGES: "max_tokens"}


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    counts = st.integers(1, 50)
    return Usage(
        input_tokens=draw(counts),
        output_tokens=draw(counts),
        cache_read_tokens=draw(counts),
        cache_write_tokens=draw(counts),
        reasoning_tokens=draw(counts),
    )


@st.composite
def scripts(draw: st.DrawFn) -> list[Reply]:
    """Rounds that end in injected calls, and a last one with none or with calls of the client's tools too."""
    rounds = []
    for number in range(draw(st.integers(0, 4))):
        calls = [call(f"call_{number}_{index}", {"text": draw(WORDS)}) for index in range(draw(st.integers(1, 3)))]
        rounds.append(Reply(text=draw(WORDS), thinking=draw(WORDS), tool_calls=calls, usage=draw(usages())))
    own = [own_call(f"own_{index}", path=draw(WORDS)) for index in range(draw(st.integers(0, 2)))]
    mixed = [call(f"call_m_{index}") for index in range(draw(st.integers(0, 2)))] if own else []
    last = draw(st.permutations([*own, *mixed]))
    return [*rounds, Reply(text=draw(WORDS), thinking=draw(WORDS), tool_calls=last, usage=draw(usages()))]


def grouping(draw: st.DrawFn) -> Any:
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=5))

    def grouped(events: Sequence[bytes]) -> Iterator[bytes]:
        start, turn = 0, 0
        while start < len(events):
            size = sizes[turn % len(sizes)]
            yield b"".join(events[start : start + size])
            start, turn = start + size, turn + 1

    return grouped


@lean
@given(st.data())
def test_any_script_is_one_well_formed_response(data: st.DataObject) -> None:
    """Text, own calls, order and usage look like those of one message, and nothing injected shows."""
    kind, streamed = data.draw(st.sampled_from(KINDS)), data.draw(st.booleans())
    replies = data.draw(scripts())
    grouped = data.draw(st.composite(grouping)())
    asked: dict[str, Any] = ASKED if kind is CHAT and streamed else {}
    played = play(kind, replies, streamed=streamed, grouped=grouped, tools=[kind.own_tool], **asked)

    assert len(played.asked) == len(replies)
    assert b"bmcp_" not in played.body
    seen = played.seen()
    texts = [reply.text for reply in replies if reply.text]
    assert seen.text.replace("\n\n", "").replace("\n", "") == "".join(texts).replace("\n", "")
    own = [one for one in replies[-1].tool_calls if one.name not in NAMES]
    assert [(id_, name) for id_, name, _ in seen.calls] == [(one.id, one.name) for one in own]
    assert [json.loads(given) if isinstance(given, str) else given for _, _, given in seen.calls] == [
        one.arguments_object for one in own
    ]
    assert seen.finish == (CALLS if own else STOP)[kind]
    inputs = "input_tokens" if kind is MESSAGES else "all_input_tokens"
    total = (
        sum(getattr(reply.usage, inputs) for reply in replies),
        sum(reply.usage.output_tokens for reply in replies),
    )
    assert seen.tokens == total
    assert _cached(kind, seen.whole) == sum(reply.usage.cache_read_tokens for reply in replies)
    assert [one.id for one in played.calls] == [
        one.id for reply in replies for one in reply.tool_calls if one.name in NAMES
    ]
    if streamed:
        _check_order(played)


def _cached(kind: Kind, whole: dict[str, Any]) -> int:
    usage = whole["usage"]
    if kind is MESSAGES:
        return int(usage["cache_read_input_tokens"])
    return int(usage["prompt_tokens_details" if kind is CHAT else "input_tokens_details"]["cached_tokens"])


def _check_order(played: Played) -> None:
    """Assert one start, one end, and numbers without gaps."""
    events = played.events
    if played.kind is CHAT:
        assert played.body.count(b"[DONE]") == 1
        assert played.body.endswith(b"data: [DONE]\n\n")
        assert len({event["id"] for event in events}) == 1
        assert [bool(choice["finish_reason"]) for event in events for choice in event["choices"]].count(True) == 1
        roles = [choice["delta"] for event in events for choice in event["choices"] if "role" in choice["delta"]]
        assert len(roles) == 1
        numbers = [
            one["index"] for event in events for c in event["choices"] for one in c["delta"].get("tool_calls", [])
        ]
        assert sorted(set(numbers)) == list(range(len(set(numbers))))
        return
    kinds = [event["type"] for event in events]
    if played.kind is MESSAGES:
        started = [event["index"] for event in events if event["type"] == "content_block_start"]
        stopped = [event["index"] for event in events if event["type"] == "content_block_stop"]
        assert started == stopped == list(range(len(started)))
        assert [kinds.count(one) for one in ("message_start", "message_delta", "message_stop")] == [1, 1, 1]
        assert kinds[-2:] == ["message_delta", "message_stop"]
        return
    added = [event["output_index"] for event in events if event["type"] == "response.output_item.added"]
    assert added == list(range(len(added)))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [kinds.count(one) for one in ("response.created", "response.completed")] == [1, 1]
    final = events[-1]["response"]
    assert final["id"] == events[0]["response"]["id"]
    done = [event["item"]["id"] for event in events if event["type"] == "response.output_item.done"]
    assert [item["id"] for item in final["output"]] == done


@lean
@given(st.data())
def test_a_single_round_without_injected_calls_is_byte_exact(data: st.DataObject) -> None:
    """A response without injected calls is relayed byte for byte, except for the tool lists of Responses."""
    kind, streamed = data.draw(st.sampled_from(KINDS)), data.draw(st.booleans())
    own = [own_call(f"own_{index}", path=data.draw(WORDS)) for index in range(data.draw(st.integers(0, 3)))]
    stops: list[Any] = [None, "max_tokens", "refusal"]
    stop = data.draw(st.sampled_from(stops))
    reply = Reply(text=data.draw(WORDS), thinking=data.draw(WORDS), tool_calls=own, stop_reason=stop)
    grouped = data.draw(st.composite(grouping)())
    asked: dict[str, Any] = ASKED if kind is CHAT and streamed else {}
    played = play(kind, [reply], streamed=streamed, grouped=grouped, tools=[kind.own_tool], **asked)
    (came,) = played.answers
    if kind is not RESPONSES:
        assert played.body == came
        return
    assert b"bmcp_" not in played.body
    for was, now in zip(*([part.splitlines() for part in (came, played.body)]), strict=True):
        if b'"tools"' not in was:
            assert now == was
        else:
            old, new = (json.loads(line.removeprefix(b"data: ")) for line in (was, now))
            for value in (old, new):
                value.get("response", value).pop("tools")
            assert old == new


def test_without_tools_of_the_client_even_responses_repeat_none(streamed: bool) -> None:
    """A Responses client that sent no tools gets an empty tool list, and otherwise the same bytes."""
    played = play(RESPONSES, [Reply(text="x")], streamed=streamed)
    came = played.answers[0]
    tools = json.dumps(json.loads(played.asked[0])["tools"], separators=(",", ":")).encode()
    assert came.count(tools) == (3 if streamed else 1)
    assert played.body == came.replace(tools, b"[]")


def test_usage_that_was_not_asked_for_is_not_shown() -> None:
    """A chat client that did not ask for usage gets no usage chunk, with or without rounds."""
    for replies in ([Reply(text="x")], [Reply(tool_calls=[call()]), Reply(text="x")]):
        played = play(CHAT, replies, streamed=True)
        assert played.body.count(b"[DONE]") == 1
        assert all(event["choices"] for event in played.events)
        assert all(json.loads(body)["stream_options"] == {"include_usage": True} for body in played.asked)


@pytest.mark.parametrize("before", ["", "Let me see."])
def test_the_result_goes_back_in_the_formats_own_way(kind: Kind, streamed: bool, before: str) -> None:
    """The next request is the last one with the model's turn and the results added."""
    played = play(
        kind,
        [Reply(text=before, tool_calls=[call("c1"), call("c2", tool="time")]), Reply(text="Done.")],
        streamed=streamed,
    )
    first, second = played.bodies
    name = "input" if kind is RESPONSES else "messages"
    assert {**first, name: None} == {**second, name: None}
    if kind is CHAT:
        assert second[name][:1] == first[name]
        turn, *results = second[name][1:]
        assert turn["content"] == (before or None)
        assert [one["id"] for one in turn["tool_calls"]] == ["c1", "c2"]
        assert results == [{"role": "tool", "tool_call_id": id_, "content": f"result of {id_}"} for id_ in ("c1", "c2")]
    elif kind is MESSAGES:
        assert second[name][:1] == first[name]
        turn, back = second[name][1:]
        assert [block.get("id", block.get("text")) for block in turn["content"]] == [
            *([before] if before else []),
            "c1",
            "c2",
        ]
        assert [block["tool_use_id"] for block in back["content"]] == ["c1", "c2"]
        assert back["content"][0]["content"] == [{"type": "text", "text": "result of c1"}]
    else:
        asked, *items = second[name]
        assert asked == {"type": "message", "role": "user", "content": "hi"}
        kinds = [*(["message"] if before else []), *["function_call"] * 2, *["function_call_output"] * 2]
        assert [item["type"] for item in items] == kinds
        assert [item["output"] for item in items[-2:]] == ["result of c1", "result of c2"]
    assert played.seen().text == {CHAT: f"{before}\n\nDone." if before else "Done."}.get(kind, before + "Done.")


@pytest.mark.parametrize("own", [False, True])
def test_a_call_that_was_cut_off_is_not_run(kind: Kind, streamed: bool, own: bool) -> None:
    """A call that was cut off is neither run nor shown, and the response ends as the provider ended it."""
    calls = [*([own_call()] if own else []), call(arguments='{"text": "ha' if streamed or kind is not MESSAGES else {})]
    played = play(kind, [Reply(text="So", tool_calls=calls, stop_reason="max_tokens")], streamed=streamed)
    assert played.calls == []
    assert b"bmcp_" not in played.body
    seen = played.seen()
    assert (seen.text, seen.finish, len(seen.calls)) == ("So", CUT[kind], own)


@pytest.mark.parametrize("written", ['{"text": ', "[1]", "nonsense"])
def test_arguments_that_are_no_object_leave_a_valid_history(kind: Kind, streamed: bool, written: str) -> None:
    """The model gets an error for invalid arguments, and the next request holds a valid object in their place."""
    streamed = streamed or kind is MESSAGES  # a blocking message can hold only an object
    played = play(kind, [Reply(tool_calls=[call("c1", written)]), Reply(text="ok")], streamed=streamed)
    assert [one.arguments for one in played.calls] == [written]
    second = played.bodies[1]
    if kind is CHAT:
        assert second["messages"][1]["tool_calls"][0]["function"]["arguments"] == "{}"
        assert second["messages"][2]["content"] == "no JSON"
    elif kind is MESSAGES:
        assert second["messages"][1]["content"][0]["input"] == {}
        assert second["messages"][2]["content"][0]["is_error"] is True
    else:
        assert second["input"][1]["arguments"] == "{}"
        assert second["input"][2]["output"] == "no JSON"
    assert played.seen().text == "ok"


def test_a_call_without_arguments_is_an_empty_object(kind: Kind, streamed: bool) -> None:
    """Empty arguments, which some models write for a tool without parameters, are an empty object."""
    played = play(kind, [Reply(tool_calls=[call("c1", "")]), Reply(text="ok")], streamed=streamed)
    assert [one.parsed() for one in played.calls] == [{}]
    assert '"arguments":""' not in played.asked[1].decode()


def test_in_the_last_round_nothing_is_called(kind: Kind, streamed: bool) -> None:
    """The last round forbids calls, and a call that comes nevertheless is dropped."""
    replies = [Reply(text=f"{number}.", tool_calls=[call(f"c{number}")]) for number in range(1, 4)]
    played = play(kind, replies, streamed=streamed, last=3, tool_choice="auto")
    assert len(played.asked) == 3
    choices = [body["tool_choice"] for body in played.bodies]
    assert choices == ["auto", "auto", {"type": "none"} if kind is MESSAGES else "none"]
    assert len(played.calls) == 2
    assert b"bmcp_" not in played.body
    seen = played.seen()
    assert seen.finish == STOP[kind]
    if kind is RESPONSES:
        assert seen.whole["tool_choice"] == "auto"


@pytest.mark.parametrize("choice", ["none", "auto", {"type": "auto"}, {"type": "allowed_tools", "mode": "auto"}])
def test_the_clients_tool_choice_stays(kind: Kind, streamed: bool, choice: Any) -> None:
    """The client's tool choice is sent unchanged in every round unless it forces a call."""
    played = play(kind, [Reply(tool_calls=[call()]), Reply(text="x")], streamed=streamed, tool_choice=choice)
    assert [body["tool_choice"] for body in played.bodies] == [choice, choice]


_LISTED = [{"type": "function", "name": "read"}]
FORCED = [
    (CHAT, "required", "auto"),
    (CHAT, {"type": "function", "function": {"name": "read"}}, "auto"),
    (
        CHAT,
        {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": _LISTED}},
        {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": _LISTED}},
    ),
    (RESPONSES, "required", "auto"),
    (RESPONSES, {"type": "function", "name": "read"}, "auto"),
    (RESPONSES, {"type": "web_search"}, "auto"),
    (
        RESPONSES,
        {"type": "allowed_tools", "mode": "required", "tools": _LISTED},
        {"type": "allowed_tools", "mode": "auto", "tools": _LISTED},
    ),
    (MESSAGES, {"type": "any"}, {"type": "auto"}),
    (
        MESSAGES,
        {"type": "tool", "name": "read", "disable_parallel_tool_use": True},
        {"type": "auto", "disable_parallel_tool_use": True},
    ),
]


@pytest.mark.parametrize(("kind", "choice", "then"), FORCED)
def test_a_forced_call_is_forced_once(kind: Kind, streamed: bool, choice: Any, then: Any) -> None:
    """A forced call is forced in the first round only; otherwise the model could never answer."""
    played = play(kind, [Reply(tool_calls=[call()]), Reply(text="x")], streamed=streamed, tool_choice=choice)
    assert [body["tool_choice"] for body in played.bodies] == [choice, then]
    if kind is RESPONSES:
        seen = played.events[-1]["response"] if streamed else played.answer
        assert seen["tool_choice"] == choice


@pytest.mark.parametrize("given", ["absent", "null", "[]", "[ ]", '[ {"name": "mine",  "n": 1.0e2} ]'])
def test_our_tools_go_first_and_the_clients_stay_as_they_are(kind: Kind, given: str) -> None:
    """Injected tools come before the client's, and no other byte of the body changes."""
    member = "" if given == "absent" else f', "tools": {given}'
    body = f'{{"model" : "m"{member}, "x": 1e400000000, "messages": [], "input": "hi"}}'.replace("1e400000000", "1.50")
    played = play(kind, [Reply(text="x")], streamed=False, body=body.encode())
    ours = kind.format.definitions(TOOLS).decode()
    own = given[1:-1] if given.startswith("[") else ""
    tools = f"[{ours}{',' if own.strip() else ''}{own}]"
    expected = body.replace(f'ools": {given}', f'ools": {tools}') if member else body[:-1] + f',"tools":{tools}}}'
    assert played.asked == [expected.encode()]


def test_requests_share_their_beginning(kind: Kind, streamed: bool) -> None:
    """Each request of the rounds begins like the one before, so that the provider's prompt cache is used."""
    replies = [Reply(text=f"{n}", thinking="hm", tool_calls=[call(f"c{n}")]) for n in range(4)]
    tools: dict[str, Any] = {"tools": [kind.own_tool]}
    played = play(kind, [*replies, Reply(text="x")], streamed=streamed, **tools)
    again = play(kind, [*replies, Reply(text="x")], streamed=streamed, **tools)
    name = "input" if kind is RESPONSES else "messages"
    bodies = played.bodies
    lists = [body.pop(name) for body in bodies]
    assert all(body == bodies[0] for body in bodies)
    lists[0] = lists[0] if isinstance(lists[0], list) else lists[1][:1]
    for before, after in itertools.pairwise(lists):
        assert after[: len(before)] == before
    assert again.asked[0] == played.asked[0]


def test_an_error_in_a_later_round_reaches_the_client(kind: Kind) -> None:
    """An error in a later round reaches the client once, as the provider wrote it, and no success follows."""
    played = play(kind, [Reply(text="a", tool_calls=[call()]), Reply(text="b", error="overloaded")], streamed=True)
    assert played.body.count(b"overloaded") == 1
    assert b"message_stop" not in played.body
    assert b"[DONE]" not in played.body
    assert b"response.completed" not in played.body
    if kind is RESPONSES:
        numbers = [event["sequence_number"] for event in played.events]
        assert numbers == list(range(len(numbers)))
        assert played.events[-1]["type"] == "error"


@pytest.mark.parametrize(
    ("kind", "members"),
    [
        (CHAT, {"n": 2}),
        (CHAT, {"functions": [{"name": "f"}]}),
        (CHAT, {"prediction": {"type": "content", "content": "x"}}),
        (CHAT, {"web_search_options": {"search_context_size": "low"}}),
        (RESPONSES, {"background": True}),
    ],
)
def test_some_requests_take_no_tools(kind: Kind, members: dict[str, Any]) -> None:
    """No tools are injected into requests that cannot be continued, or that providers refuse with tools."""
    assert not parse(kind.format, kind.request(streamed=False, **members)).takes_tools
    assert parse(kind.format, kind.request(streamed=False, n=1, background=False)).takes_tools


def test_schemas_are_what_every_vendor_takes(kind: Kind) -> None:
    """The schemas of injected tools are accepted by every vendor, so that one odd tool breaks no request."""
    odd = [
        Tool(name="bmcp_a_b", server="a", tool="b", description="", input_schema=schema)
        for schema in (
            {"type": "object"},
            {"anyOf": [{"required": ["x"]}], "properties": {"x": {"anyOf": [{"type": "string"}]}}},
        )
    ]
    for written in json.loads(b"[" + kind.format.definitions(odd) + b"]"):
        inner = written.get("function", written)
        schema = inner.get("parameters", inner.get("input_schema"))
        assert schema["type"] == "object"
        assert isinstance(schema["properties"], dict)
        assert "anyOf" not in schema
    assert schema["properties"] == {"x": {"anyOf": [{"type": "string"}]}}
