"""Sending back the model's whole message: unknown members and parts, state beside calls, unchanged arguments."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fastapi_aibridge.formats.rounds import AnsweredCall, Rounds
from fastapi_aibridge.formats.scanner import finish
from fastapi_aibridge.testing import Reply
from fastapi_aibridge.tools import Text, ToolResult

from .driving import CHAT, MESSAGES, RESPONSES, Played, answer_to, call, own_call, play, remembering, woven
from .test_chat_completions import DONE, FINISH, calls, chunk, piece
from .test_mixed_turns import history
from .test_responses import MESSAGE, USE, answered

PARTS = [
    {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
    {"type": "text", "text": "It is 42."},
]
ENCRYPTED = {"type": "reasoning.encrypted", "data": "c2ln", "id": "rs_1", "format": "google-gemini-v1", "index": 0}
INJECTED = piece("bmcp_box_echo", '{"text":"x"}', "c1")


def chat_answer(message: dict[str, Any], finish: str = "tool_calls") -> bytes:
    whole = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return json.dumps({"id": "c", "choices": [whole], "usage": {"prompt_tokens": 1}}).encode()


def chat_stream(*deltas: dict[str, Any]) -> bytes:
    return b"".join([*map(chunk, deltas), FINISH, DONE])


def sent_back(played: Played) -> dict[str, Any]:
    message: dict[str, Any] = played.bodies[1]["messages"][1]
    return message


def test_content_in_parts() -> None:
    """Content in parts keeps its parts beside an injected call, in a mixed turn and in the final response."""
    played = play(CHAT, [chat_answer({"content": PARTS, "tool_calls": [INJECTED]}), Reply(text="ok")], streamed=False)
    assert sent_back(played)["content"] == PARTS
    shown = played.answer["choices"][0]["message"]["content"]
    assert shown == [*PARTS, {"type": "text", "text": "ok"}]
    final = chat_answer({"content": PARTS}, "stop")
    played = play(CHAT, [Reply(tool_calls=[call()]), final], streamed=False)
    assert played.answer["choices"][0]["message"]["content"] == PARTS
    mixed = chat_answer({"content": PARTS, "tool_calls": [INJECTED, piece("read", "{}", "own")]})
    played = play(CHAT, [mixed], streamed=False)
    assert played.answer["choices"][0]["message"]["content"] == PARTS
    played = play(CHAT, [Reply(text="So.", tool_calls=[call()]), final], streamed=False)
    assert played.answer["choices"][0]["message"]["content"] == [{"type": "text", "text": "So."}, *PARTS]


def test_content_in_parts_of_a_stream() -> None:
    """Pieces of one part are joined into that part, and text after the parts is a part of its own."""
    deltas: list[dict[str, Any]] = [
        {"role": "assistant", "content": [{"type": "thinking", "thinking": [{"type": "text", "text": "h"}]}]},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "m"}]}]},
        {"content": "It is"},
        {"content": " 42."},
        calls({**INJECTED, "index": 0}),
    ]
    played = play(CHAT, [chat_stream(*deltas), Reply(text="ok")], streamed=True)
    assert sent_back(played)["content"] == PARTS


def test_parts_are_found_again_in_the_clients_history() -> None:
    """A mixed turn after a round with parts is restored with each message's own parts."""
    memory = remembering()
    first = chat_answer({"content": PARTS, "tool_calls": [INJECTED]})
    second = chat_answer({"content": "And?", "tool_calls": [piece("read", "{}", "own")]})
    played = play(CHAT, [first, second], streamed=False, memory=memory)
    shown = played.answer["choices"][0]["message"]
    messages = [{"role": "user", "content": "hi"}, shown, {"role": "tool", "tool_call_id": "own", "content": "mine"}]
    body = json.dumps({"model": "m", "messages": messages}).encode()
    asked = play(CHAT, [Reply(text="ok")], streamed=False, body=body, memory=memory).bodies[0]["messages"]
    assert [one["role"] for one in asked] == ["user", "assistant", "tool", "assistant", "tool"]
    assert asked[1]["content"] == PARTS
    assert asked[3]["content"] == [{"type": "text", "text": "And?"}]


CITATION = {"type": "url_citation", "url_citation": {"url": "u"}}
SIGNATURE = {"thought_signature": "a"}
STATES: list[tuple[str, list[Any], Any]] = [
    ("reasoning_details", [[ENCRYPTED]], [ENCRYPTED]),
    (
        "reasoning_details",
        [
            [{"type": "reasoning.text", "text": "Let ", "index": 0, "format": "x"}],
            [{"type": "reasoning.text", "text": "me", "index": 0, "format": "x"}],
            [{"type": "reasoning.text", "signature": "sig", "index": 0}],
            [{**ENCRYPTED, "index": 1}],
        ],
        [
            {"type": "reasoning.text", "text": "Let me", "index": 0, "format": "x", "signature": "sig"},
            {**ENCRYPTED, "index": 1},
        ],
    ),
    ("reasoning_content", ["Think", "ing"], "Thinking"),
    ("reasoning", ["Think", "ing"], "Thinking"),
    ("provider_specific_fields", [SIGNATURE, {"more": {"n": 1}}], {**SIGNATURE, "more": {"n": 1}}),
    ("annotations", [[CITATION], [CITATION]], [CITATION, CITATION]),
    ("novelty", [7], 7),
]


@pytest.mark.parametrize(("name", "pieces", "whole"), STATES)
def test_state_beside_the_calls(name: str, pieces: list[Any], whole: Any) -> None:
    """State beside the calls is sent back, as providers require, and assembled from its pieces if streamed."""
    answer = chat_answer({"content": None, name: whole, "tool_calls": [INJECTED]})
    assert sent_back(play(CHAT, [answer, Reply(text="ok")], streamed=False))[name] == whole
    deltas = [{"role": "assistant"}, *({name: one} for one in pieces), calls({**INJECTED, "index": 0})]
    played = play(CHAT, [chat_stream(*deltas), Reply(text="ok")], streamed=True)
    assert sent_back(played)[name] == whole


@pytest.mark.parametrize("given", [{"text": "x"}, {}, {"deep": [{"a": None}]}])
def test_arguments_that_are_an_object(streamed: bool, given: dict[str, Any]) -> None:
    """Arguments given as an object instead of a string are used for the call and sent back unchanged."""
    one = {"id": "c1", "type": "function", "function": {"name": "bmcp_box_echo", "arguments": given}}
    chat = chat_stream(calls({**one, "index": 0})) if streamed else chat_answer({"tool_calls": [one]})
    played = play(CHAT, [chat, Reply(text="ok")], streamed=streamed)
    assert [call.parsed() for call in played.calls] == [given]
    assert sent_back(played)["tool_calls"][0]["function"]["arguments"] == given
    item = {**USE, "arguments": given}
    played = play(RESPONSES, [answered([item], streamed=streamed), Reply(text="ok")], streamed=streamed)
    assert [call.parsed() for call in played.calls] == [given]
    assert item in played.bodies[1]["input"]


def test_hidden_calls_return_to_where_the_model_wrote_them(streamed: bool) -> None:
    """Hidden calls return to their places among the client's calls: some providers sign the first one."""
    for kind in (CHAT, MESSAGES, RESPONSES):
        memory = remembering()
        mixed = Reply(text="So:", tool_calls=[call("c1"), own_call("own"), call("c2")])
        first = play(kind, [mixed], streamed=streamed, memory=memory)
        asked = play(kind, [Reply(text="ok")], streamed=streamed, memory=memory, **history(first)).asked[0].decode()
        assert asked.index('"c1"') < asked.index('"own"')


# Reasoning of a response, and the call after it

RS1 = {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "enc1"}
RS2 = {"id": "rs_2", "type": "reasoning", "summary": [], "encrypted_content": "enc2"}


def outline(items: list[dict[str, Any]]) -> list[str]:
    return [
        item.get("id") or (f"output {item['call_id']}" if "output" in item else item.get("type", "message"))
        for item in items
    ]


@pytest.mark.parametrize("left_out", [(), ("id",), ("encrypted_content",)])
def test_reasoning_gets_the_call_back_that_it_led_to(streamed: bool, left_out: tuple[str, ...]) -> None:
    """The call after a reasoning returns to the client's history, if that keeps its id or its encrypted content."""
    memory = remembering()
    rounds = [answered([RS1, USE], streamed=streamed), answered([RS2, MESSAGE], streamed=streamed)]
    first = play(RESPONSES, rounds, streamed=streamed, memory=memory)
    given = first.events[-1]["response"]["output"] if streamed else first.answer["output"]
    items = [{key: value for key, value in item.items() if key not in left_out} for item in given]
    items = [{key: value for key, value in item.items() if value is not None} for item in items]
    asked = [{"role": "user", "content": "hi"}, *items, {"role": "user", "content": "And?"}]
    second = play(RESPONSES, [Reply(text="x")], streamed=streamed, memory=memory, input=asked)
    whole = second.bodies[0]["input"]
    calls_at = [n for n, item in enumerate(whole) if item.get("type") == "function_call"]
    assert len(calls_at) == 1
    assert whole[calls_at[0] - 1]["type"] == "reasoning"
    assert whole[calls_at[0] + 1]["type"] == "function_call_output"
    # A call may have an id only beside reasoning with an id.
    assert ("id" in whole[calls_at[0]]) is ("id" not in left_out)
    assert [item for item in whole if item in asked] == asked


def test_reasoning_of_another_conversation_gets_nothing(streamed: bool) -> None:
    """Reasoning with the same id in another conversation gets no call: the input before it tells them apart."""
    memory = remembering()
    rounds = [answered([RS1, USE], streamed=streamed), answered([RS2, MESSAGE], streamed=streamed)]
    play(RESPONSES, rounds, streamed=streamed, memory=memory)
    asked = [{"role": "user", "content": "other"}, RS1, MESSAGE, {"role": "user", "content": "And?"}]
    second = play(RESPONSES, [Reply(text="x")], streamed=streamed, memory=memory, input=asked)
    assert second.bodies[0]["input"] == asked


def test_a_provider_that_does_not_retain_gets_nothing_to_look_up(streamed: bool) -> None:
    """If the response says that nothing is stored, reasoning is not sent back and the call has no id."""
    bare = {"id": "rs_1", "type": "reasoning", "summary": []}
    rounds = [answered([bare, USE], streamed=streamed, store=False), answered([MESSAGE], streamed=streamed)]
    whole = play(RESPONSES, rounds, streamed=streamed).bodies[1]["input"]
    assert outline(whole) == ["message", "function_call", "output c1"]


# The container of a Messages response

CONTAINER = {"id": "container_1", "expires_at": "2026-12-01T00:00:00Z"}


@pytest.mark.parametrize("asked", [None, "container_0", {"id": "container_0", "skills": [{"skill_id": "x"}]}])
def test_the_container_is_named_in_the_next_round(streamed: bool, asked: Any) -> None:
    """The next round names the container, with the client's own options, and the client gets to know it."""
    use = {"type": "tool_use", "id": "t1", "name": "bmcp_box_echo", "input": {}}
    final = {"type": "text", "text": "ok"}
    if streamed:
        first = _stream([use], {"stop_reason": "tool_use", "container": CONTAINER})
        answers = [first, _stream([final], {"stop_reason": "end_turn"})]
    else:
        answers = [
            json.dumps({"id": "m", "content": [one], "stop_reason": stop, **more}).encode()
            for one, stop, more in ((use, "tool_use", {"container": CONTAINER}), (final, "end_turn", {}))
        ]
    members = {} if asked is None else {"container": asked}
    played = play(MESSAGES, answers, streamed=streamed, **members)
    named = {**asked, "id": "container_1"} if isinstance(asked, dict) else "container_1"
    assert played.bodies[1]["container"] == named
    shown = played.events[-2]["delta"] if streamed else played.answer
    assert shown["container"] == CONTAINER


def _stream(blocks: list[dict[str, Any]], delta: dict[str, Any]) -> bytes:
    events: list[dict[str, Any]] = [{"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 1}}}]
    for index, block in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        events.append({"type": "content_block_stop", "index": index})
    events += [{"type": "message_delta", "delta": delta, "usage": {"output_tokens": 5}}, {"type": "message_stop"}]
    return b"".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in events)


def test_unknown_blocks_and_members_of_messages_go_back(streamed: bool) -> None:
    """Unknown blocks and members are sent back."""
    novelty = {"type": "novelty", "shape": {"a": [1]}}
    use = {"type": "tool_use", "id": "t1", "name": "bmcp_box_echo", "input": {}, "caller": {"type": "direct"}}
    if streamed:
        first = _stream([novelty, use], {"stop_reason": "tool_use"})
    else:
        first = json.dumps({"id": "m", "content": [novelty, use], "stop_reason": "tool_use"}).encode()
    turn = play(MESSAGES, [first, Reply(text="ok")], streamed=streamed).bodies[1]["messages"][1]
    assert turn["content"] == [novelty, use]


@pytest.mark.parametrize(
    "refusal",
    [
        {"message": "messages.1.assistant.reasoning_content: property 'reasoning_content' is unsupported"},
        {"detail": [{"type": "extra_forbidden", "loc": ["body", "messages", 1, "assistant", "reasoning_content"]}]},
    ],
    ids=["Cerebras", "Mistral"],
)
def test_a_member_that_the_provider_refuses_to_get_back_is_taken_out(streamed: bool, refusal: Any) -> None:
    """Members that a refusal names are taken out of the model's messages, in later rounds too; the client's stay."""
    earlier = {"role": "assistant", "content": "Hi.", "reasoning_content": "the client's"}
    body = CHAT.request(streamed=streamed, messages=[earlier, {"role": "user", "content": "hi"}])
    rounds = woven(CHAT, body, remembering())
    said = {"reasoning_content": "hm", "refusal": None, "name": "x"}
    for number in (1, 2):
        _feed(
            rounds,
            chat_stream({**said}, calls(INJECTED)) if streamed else chat_answer({**said, "tool_calls": [INJECTED]}),
        )
        finish(rounds.go_on([answer_to(one) for one in rounds.calls()], last=False))
        assert finish(rounds.take_out(json.dumps(refusal).encode())) is (number == 1)
    assert not finish(rounds.take_out(b'{"error":{"message":"the context is too long"}}'))
    sent = json.loads(rounds.body[:])["messages"]
    assert sent[0] == earlier
    for message in (sent[2], sent[4]):
        assert "reasoning_content" not in message
        assert (message["name"], len(message["tool_calls"])) == ("x", 1)
    assert [one["role"] for one in sent[2:]] == ["assistant", "tool"] * 2


def test_large_results_stay_whole_where_a_member_is_taken_out() -> None:
    """A result of many megabytes goes up again whole."""
    rounds = woven(CHAT, CHAT.request(streamed=False), remembering())
    rounds.blocking(chat_answer({"reasoning_content": "hm", "tool_calls": [INJECTED]}))
    large = ToolResult(content=(Text("x" * 12_000_000),))
    finish(rounds.go_on([AnsweredCall(call=one, result=large) for one in rounds.calls()], last=False))
    assert finish(rounds.take_out(b"reasoning_content is not allowed"))
    result = json.loads(rounds.body[:])["messages"][-1]
    assert (result["role"], len(result["content"])) == ("tool", 12_000_000)


def _feed(rounds: Rounds, answer: bytes) -> None:
    if answer.startswith(b"data:"):
        rounds.stream(answer)
    else:
        rounds.blocking(answer)


def test_audio_goes_back_by_its_id(streamed: bool) -> None:
    """Of the audio in a message a request may have the id only."""
    audio = {"id": "audio_1", "data": "AAAA", "expires_at": 9, "transcript": "hm"}
    if streamed:
        first = chat_stream(
            {"audio": {"id": "audio_1", "transcript": "hm"}}, {"audio": {"data": "AA"}}, calls(INJECTED)
        )
    else:
        first = chat_answer({"audio": audio, "tool_calls": [INJECTED]})
    played = play(CHAT, [first, Reply(text="ok")], streamed=streamed)
    assert sent_back(played)["audio"] == {"id": "audio_1"}


def test_logprobs_of_a_chunk_without_text_are_kept() -> None:
    """A chunk that has only log probabilities reaches the client in a later round, too."""
    said = {"content": [{"token": "", "logprob": -0.5, "bytes": [], "top_logprobs": []}]}
    choice = {"index": 0, "delta": {"content": ""}, "logprobs": said, "finish_reason": None}
    second = chunk({"content": "ok"}) + chunk(None, choices=[choice]) + chunk({}, "stop") + DONE
    played = play(CHAT, [chat_stream(calls(INJECTED)), second], streamed=True)
    assert [one["logprobs"] for event in played.events for one in event["choices"] if "logprobs" in one] == [said]
