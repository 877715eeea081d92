"""Chat Completions, byte by byte: numbering, finish and usage as real providers send them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from fastapi_aibridge.formats.rounds import AnsweredCall
from fastapi_aibridge.testing import Reply
from fastapi_aibridge.tools import Image, Text, ToolResult

from .driving import CHAT, call, events_of, own_call, play, remembering

ASKED: dict[str, Any] = {"stream_options": {"include_usage": True}}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **members: Any) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    value = {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices, **members}
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def calls(*given: dict[str, Any]) -> dict[str, Any]:
    return {"tool_calls": list(given)}


def piece(name: str = "", arguments: str = "", id_: str = "", **members: Any) -> dict[str, Any]:
    function = {"arguments": arguments, **({"name": name} if name else {})}
    return {**members, **({"id": id_, "type": "function"} if id_ else {}), "function": function}


START = chunk({"role": "assistant", "content": None})
FINISH = chunk({}, "tool_calls")
DONE = b"data: [DONE]\n\n"


def numbers(body: bytes) -> list[tuple[int, str]]:
    """Return index and arguments of each tool call delta that the client sees."""
    return [
        (one["index"], one["function"]["arguments"])
        for event in events_of(body)
        for choice in event["choices"]
        for one in choice["delta"].get("tool_calls", [])
    ]


def test_an_index_that_does_not_start_at_0() -> None:
    """Calls are assembled from any first index, and the client's own calls are numbered from 0."""
    stream = [
        START,
        chunk(calls(piece("bmcp_box_echo", "", "c1", index=1))),
        chunk(calls(piece(arguments='{"text":', index=1))),
        chunk(calls(piece("read", "", "own", index=2))),
        chunk(calls(piece(arguments='"x"}', index=1), piece(arguments="{}", index=2))),
        FINISH,
        DONE,
    ]
    played = play(CHAT, [b"".join(stream)], streamed=True)
    assert [(one.id, one.arguments) for one in played.calls] == [("c1", '{"text":"x"}')]
    assert numbers(played.body) == [(0, ""), (0, "{}")]
    assert played.seen().calls == [("own", "read", "{}")]
    assert played.seen().finish == "tool_calls"


def test_calls_without_an_index_or_always_with_0() -> None:
    """Without indexes, or with 0 for all, a new id begins a call and pieces without an id continue it."""
    spellings: list[dict[str, Any]] = [{}, {"index": 0}]
    for index in spellings:
        stream = [
            START,
            chunk(calls(piece("bmcp_box_echo", '{"text":', "c1", **index))),
            chunk(calls(piece(arguments='"1"}', **index))),
            chunk(calls(piece("bmcp_box_time", "{", "c2", **index))),
            chunk(calls(piece(arguments="}", **index))),
            chunk(calls(piece("read", "{", "own", **index))),
            chunk(calls(piece(arguments="}", **index))),
            FINISH,
            DONE,
        ]
        played = play(CHAT, [b"".join(stream)], streamed=True)
        assert [(one.id, one.arguments) for one in played.calls] == [("c1", '{"text":"1"}'), ("c2", "{}")]
        assert numbers(played.body) == [(0, "{"), (0, "}")]


def test_the_clients_calls_before_an_injected_one_keep_their_numbers() -> None:
    """The client's calls are numbered without a gap around a hidden call."""
    stream = [
        START,
        chunk(calls(piece("read", "{}", "own1", index=0))),
        chunk(calls(piece("bmcp_box_echo", "{}", "c1", index=1))),
        chunk(calls(piece("read", "{}", "own2", index=2))),
        FINISH,
        DONE,
    ]
    assert numbers(play(CHAT, [b"".join(stream)], streamed=True).body) == [(0, "{}"), (1, "{}")]


def test_odd_streams_without_injected_calls_pass_as_they_came() -> None:
    """Without injected calls a stream is relayed byte for byte, whatever its indexes, comments and chunks."""
    stream = [
        b": hello\n\n",
        chunk(None, prompt_filter_results=[], id=""),
        START,
        chunk({"content": "Hi"}),
        chunk(calls(piece("read", "{}", "a"))),
        chunk(calls(piece("read", "{}", "b"))),
        chunk(calls(piece("read", "{}", "c", index=7))),
        chunk({"content": "."}, "stop", usage=USAGE),
        b": bye\n\n",
        chunk(None, usage=USAGE),
        chunk({}, "stop"),
        b"data: [DONE] \r\n\r\n",
    ]
    body = b"".join(stream)
    assert play(CHAT, [body], streamed=True, **ASKED).body == body


def test_several_calls_in_one_chunk() -> None:
    """Whole calls in one chunk with the finish reason, as Gemini sends them, are told apart."""
    both = calls(piece("bmcp_box_echo", "{}", "c1", index=0), piece("read", "{}", "own", index=1))
    stream = chunk({"role": "assistant", **both}, "tool_calls") + DONE
    played = play(CHAT, [stream], streamed=True)
    assert [one.id for one in played.calls] == ["c1"]
    assert played.seen().calls == [("own", "read", "{}")]


def test_text_in_the_finish_chunk_of_a_round_is_not_lost() -> None:
    """Text in the finish chunk of a round comes before the text of the next round."""
    first = [
        START,
        chunk(calls(piece("bmcp_box_echo", "{}", "c1", index=0))),
        chunk({"content": "So"}, "tool_calls"),
        DONE,
    ]
    played = play(CHAT, [b"".join(first), Reply(text="done")], streamed=True)
    assert played.seen().text == "So\n\ndone"


def test_stop_instead_of_tool_calls() -> None:
    """Calls are run after the finish reason `stop`, which some providers send."""
    first = START + chunk(calls(piece("bmcp_box_echo", "{}", "c1", index=0))) + chunk({}, "stop") + DONE
    played = play(CHAT, [first, Reply(text="done")], streamed=True)
    assert [one.id for one in played.calls] == ["c1"]
    assert played.seen().finish == "stop"


@pytest.mark.parametrize("reason", ["tool_use", "TOOL_CALLS", "end_turn", "eos", None])
@pytest.mark.parametrize("streamed", [False, True])
def test_calls_are_run_whatever_their_reason_is_called(reason: str | None, streamed: bool) -> None:
    """Calls are run after any finish reason or none; otherwise the client would get no response."""
    given = calls(piece("bmcp_box_echo", "{}", "c1", index=0))
    first = START + chunk(given) + (chunk({}, reason) if reason else b"") + DONE
    if not streamed:
        choice = {"index": 0, "message": {"role": "assistant", "content": None, **given}, "finish_reason": reason}
        first = json.dumps({"id": "c-1", "object": "chat.completion", "choices": [choice]}).encode()
    played = play(CHAT, [first, Reply(text="done")], streamed=streamed)
    assert [one.id for one in played.calls] == ["c1"]
    assert (played.seen().text, played.seen().finish) == ("done", "stop")


@pytest.mark.parametrize("id_", ["", "same"])
def test_parallel_calls_that_share_a_number_and_an_id(id_: str) -> None:
    """Calls that share an index and id, as from Gemini's compatible API, are told apart: each is whole in its delta."""
    first = START + b"".join(
        chunk(calls({"index": 0, "id": id_, "type": "function", **piece("bmcp_box_echo", arguments)}))
        for arguments in ('{"text":"1"}', '{"text":"2"} ', '{"text":"3"}')
    )
    played = play(CHAT, [first + FINISH + DONE, Reply(text="done")], streamed=True)
    assert [one.parsed() for one in played.calls] == [{"text": "1"}, {"text": "2"}, {"text": "3"}]
    _, message, *results = played.bodies[1]["messages"]
    assert [one["id"] for one in message["tool_calls"]] == [one["tool_call_id"] for one in results]
    assert all(one["id"] for one in message["tool_calls"])
    assert len({one["id"] for one in message["tool_calls"]}) == 3


def test_a_name_that_is_repeated_with_each_piece_begins_no_call() -> None:
    """A repeated name begins no new call unless the arguments before it are complete."""
    pieces = [piece("bmcp_box_echo", written, "c1", index=0) for written in ('{"text":{', '"a":1}', "}")]
    first = START + b"".join(chunk(calls(one)) for one in pieces) + FINISH + DONE
    played = play(CHAT, [first, Reply(text="done")], streamed=True)
    assert [one.parsed() for one in played.calls] == [{"text": {"a": 1}}]


@pytest.mark.parametrize(
    ("written", "run_with", "sent_back"),
    [("null", {}, "{}"), ('"{\\"text\\":\\"x\\"}"', {"text": "x"}, '{"text":"x"}'), ('"no object"', None, "{}")],
)
def test_arguments_that_are_null_or_json_within_json(written: str, run_with: object, sent_back: str) -> None:
    """Null or doubly encoded arguments are parsed, and are sent back as an object, as providers require."""
    first = START + chunk(calls(piece("bmcp_box_echo", written, "c1", index=0))) + FINISH + DONE
    played = play(CHAT, [first, Reply(text="done")], streamed=True)
    assert [one.parsed() for one in played.calls] == [run_with]
    assert played.bodies[1]["messages"][1]["tool_calls"][0]["function"]["arguments"] == sent_back


def test_unknown_members_of_a_calls_function_go_back() -> None:
    """Unknown members of a call's function, such as signatures, are sent back."""
    own = {"provider_specific_fields": {"thought_signature": "c2ln"}}
    given = piece("bmcp_box_echo", "{}", "c1", index=0)
    given["function"] |= own
    played = play(CHAT, [START + chunk(calls(given)) + FINISH + DONE, Reply(text="done")], streamed=True)
    function = played.bodies[1]["messages"][1]["tool_calls"][0]["function"]
    assert function == {"name": "bmcp_box_echo", "arguments": "{}", **own}


def test_what_is_repeated_in_each_delta_is_not_joined() -> None:
    """Signatures and ids that are repeated in each delta are not joined; a signature ends its thinking block."""
    signature = {"extra_content": {"google": {"thought_signature": "S"}}, "cot_id": "7"}
    thinking = [{"thinking_blocks": [{"type": "thinking", "thinking": one}]} for one in ("h", "m")]
    signed = {"thinking_blocks": [{"type": "thinking", "thinking": "", "signature": "T"}]}
    deltas: list[dict[str, Any]] = [{"content": "a", **signature}, {"content": "b", **signature}, *thinking, signed]
    last = chunk(calls(piece("bmcp_box_echo", "{}", "c1", index=0)))
    first = START + b"".join(map(chunk, deltas)) + last + FINISH + DONE
    message = play(CHAT, [first, Reply(text="done")], streamed=True).bodies[1]["messages"][1]
    assert message["content"] == "ab"
    assert {key: message[key] for key in signature} == signature
    assert message["thinking_blocks"] == [{"type": "thinking", "thinking": "hm", "signature": "T"}]


def test_usage_on_the_finish_chunk() -> None:
    """Usage on the finish chunk is summed over the rounds there, whether the client asked for it or not."""
    finish = chunk({}, "tool_calls", usage=USAGE)
    first = START + chunk(calls(piece("bmcp_box_echo", "{}", "c1", index=0))) + finish + DONE
    second = chunk({"role": "assistant", "content": "x"}) + chunk({}, "stop", usage=USAGE) + DONE
    played = play(CHAT, [first, second], streamed=True)
    assert [event["usage"] for event in played.events if event.get("usage")] == [
        {key: 2 * n for key, n in USAGE.items()}
    ]


def test_what_providers_put_beside_a_call_goes_back() -> None:
    """Gemini's thought signature and DeepSeek's reasoning are sent back: without them the next round is refused."""
    signed = {"extra_content": {"google": {"thought_signature": "sig"}}}
    for streamed in (True, False):
        if streamed:
            first = [
                chunk({"role": "assistant", "reasoning_content": "Think"}),
                chunk({"reasoning_content": "ing"}),
                chunk(calls({**piece("bmcp_box_echo", "{}", "c1", index=0), **signed})),
                FINISH,
                DONE,
            ]
            answer = b"".join(first)
        else:
            message = {
                "role": "assistant",
                "content": None,
                "reasoning_content": "Thinking",
                "tool_calls": [{**piece("bmcp_box_echo", "{}", "c1"), **signed}],
            }
            answer = json.dumps({"choices": [{"message": message, "finish_reason": "tool_calls"}]}).encode()
        turn = play(CHAT, [answer, Reply(text="x")], streamed=streamed).bodies[1]["messages"][1]
        assert turn["reasoning_content"] == "Thinking"
        assert turn["tool_calls"][0]["extra_content"] == signed["extra_content"]


def test_custom_tools_of_the_client_are_untouched() -> None:
    """A call of the client's custom tool is relayed beside an injected one, streamed and blocking."""
    custom = {"index": 1, "id": "own", "type": "custom", "custom": {"name": "shell", "input": "ls"}}
    injected = piece("bmcp_box_echo", "{}", "c1", index=0)
    streamed = play(CHAT, [START + chunk(calls(injected)) + chunk(calls(custom)) + FINISH + DONE], streamed=True)
    (seen,) = [one for event in streamed.events for one in event["choices"][0]["delta"].get("tool_calls", [])]
    assert seen == {**custom, "index": 0}
    message = {"role": "assistant", "content": None, "tool_calls": [injected, custom]}
    answer = {"id": "1", "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    blocking = play(CHAT, [json.dumps(answer).encode()], streamed=False)
    assert blocking.answer["choices"][0]["message"]["tool_calls"] == [custom]


def test_texts_of_rounds_are_kept_apart() -> None:
    """The texts of two rounds are joined with a blank line, unless the first ends with a line break."""
    for streamed in (True, False):
        for first, expected in (("One.", "One.\n\nTwo."), ("One.\n", "One.\nTwo.")):
            played = play(CHAT, [Reply(text=first, tool_calls=[call()]), Reply(text="Two.")], streamed=streamed)
            assert played.seen().text == expected


def test_images_are_mentioned() -> None:
    """An image in a result is replaced by a note, because chat accepts only text from tools."""

    def respond(one: Any) -> AnsweredCall:
        return AnsweredCall(call=one, result=ToolResult(content=(Text("Look:"), Image("aGk=", "image/png"))))

    played = play(CHAT, [Reply(tool_calls=[call()]), Reply(text="x")], streamed=False, respond=respond)
    assert played.bodies[1]["messages"][2]["content"] == "Look:\n[image, image/png]"


def test_big_numbers_and_odd_members_of_the_request_survive_the_rounds() -> None:
    """The history is extended in place: the bytes of existing members and messages stay."""
    message = rb'{"role":"user","content":"\u00e9","n":1.0e0}'
    body = b'{"model":"m","seed":123456789012345678901234567890,"messages":[' + message + b"]}"
    played = play(CHAT, [Reply(tool_calls=[call()]), Reply(text="x")], streamed=False, body=body)
    assert all(b'"seed":123456789012345678901234567890' in asked for asked in played.asked)
    assert all(message in asked for asked in played.asked)


def test_a_mixed_turn_in_the_history_leaves_the_other_messages_as_they_are() -> None:
    """Only the message whose injected calls were hidden is written anew."""
    memory = remembering()
    play(CHAT, [Reply(tool_calls=[call("c1"), own_call("own")])], streamed=False, memory=memory)
    user = rb'{"role":"user","content":"\u00e9","n":1.0e0}'
    call_ = b'{"id":"own","type":"function","function":{"name":"read","arguments":"{}"}}'
    own = b'{"role":"assistant","content":null,"tool_calls":[' + call_ + b"]}"
    back = b'{"role":"tool","tool_call_id":"own","content":"text"}'
    body = b'{"model":"m","messages":[' + user + b" , " + own + b",\n" + back + b"]}"
    asked = play(CHAT, [Reply(text="x")], streamed=False, body=body, memory=memory).asked[0]
    assert user in asked
    assert back in asked
    assert [message["role"] for message in json.loads(asked)["messages"]] == ["user", "assistant", "tool", "tool"]


def named(*pieces: str, id_: str = "c1", arguments: str = "{}", index: int = 0) -> list[bytes]:
    """Return the deltas of a call with its name in pieces; an empty piece is a delta without a name."""
    first, *rest = pieces
    deltas = [piece(first, "", id_, index=index), *(piece(one, "", index=index) for one in rest)]
    return [chunk(calls(one)) for one in [*deltas, piece(arguments=arguments, index=index)]]


@pytest.mark.parametrize(
    "pieces",
    [
        ("bmcp_box_echo",),
        ("bmcp_", "box_echo"),
        ("", "bmcp_box_echo"),
        ("b", "mcp_box_ech", "o"),
        ("bmcp_box_e", "cho"),
    ],
)
@pytest.mark.parametrize("text", [False, True])
def test_a_name_in_pieces_is_an_injected_tools(pieces: tuple[str, ...], text: bool) -> None:
    """A call whose name in pieces is that of an injected tool is hidden, and chunks in between keep their order."""
    first, *rest = named(*pieces)
    between = [chunk({"content": "Hm."})] if text else []
    stream = [START, first, *between, *rest, *named("re", "ad", id_="own", index=1), FINISH, DONE]
    played = play(CHAT, [b"".join(stream)], streamed=True)
    assert [(one.id, one.name, one.arguments) for one in played.calls] == [("c1", "bmcp_box_echo", "{}")]
    assert b"bmcp_" not in played.body
    assert played.seen().calls == [("own", "read", "{}")]
    assert played.seen().text == ("Hm." if text else "")


@pytest.mark.parametrize("pieces", [("re", "ad"), ("", "read"), ("bmcp_box_", "other"), ("bmcp_box_echo", "_more")])
@pytest.mark.parametrize("between", [0, 200])
@pytest.mark.parametrize("together", [False, True])
def test_a_name_in_pieces_is_the_clients(pieces: tuple[str, ...], between: int, together: bool) -> None:
    """A call whose name in pieces is the client's is relayed byte for byte."""
    first, *rest = named(*pieces)
    own = {"type": "function", "function": {"name": "".join(pieces), "parameters": {}}}
    events = [START, first, *[chunk({"content": ""})] * between, *rest, FINISH, DONE]

    def grouped(_: Sequence[bytes]) -> Iterator[bytes]:
        yield from [b"".join(events)] if together else events

    played = play(CHAT, [b"".join(events)], streamed=True, grouped=grouped, tools=[own])
    assert (played.body, played.calls) == (b"".join(events), [])


def test_a_name_that_never_comes_holds_nothing_back() -> None:
    """A call without a name is held back only until the finish or an error."""
    for end in ([FINISH, DONE], [b'data: {"error":{"message":"gone"}}\n\n']):
        stream = [START, chunk(calls(piece("", "", "c1", index=0))), chunk({"content": "x"}), *end]
        assert play(CHAT, [b"".join(stream)], streamed=True).body == b"".join(stream)
