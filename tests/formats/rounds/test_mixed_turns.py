"""Mixed turns: calls of the client's tools end the rounds, and the hidden injected calls return in later requests."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fastapi_aibridge.exchange import tool_memory
from fastapi_aibridge.exchange.tool_memory import OwnMemory, ToolMemory
from fastapi_aibridge.formats.scanner import finish
from fastapi_aibridge.testing import Reply

from .driving import CHAT, KINDS, MESSAGES, OWNER, RESPONSES, Kind, Played, call, own_call, play, remembering

FINAL = Reply(text="Done.")


def history(played: Played, **more: Any) -> dict[str, Any]:
    """Return the next request of a client that keeps the history itself: the response and its tools' results."""
    kind, request = played.kind, json.loads(played.request)
    whole = played.seen().whole
    if kind is CHAT:
        message = {key: value for key, value in whole["choices"][0]["message"].items() if value is not None}
        message["tool_calls"] = [
            {"id": one["id"], "type": "function", "function": {k: one["function"][k] for k in ("name", "arguments")}}
            for one in message["tool_calls"]
        ]
        results = [{"role": "tool", "tool_call_id": one["id"], "content": "mine"} for one in message["tool_calls"]]
        return {"messages": [*request["messages"], {"content": None, **message}, *results], **more}
    if kind is MESSAGES:
        results = [
            {"type": "tool_result", "tool_use_id": block["id"], "content": "mine"}
            for block in whole["content"]
            if block["type"] == "tool_use"
        ]
        turn = [{"role": "assistant", "content": whole["content"]}, {"role": "user", "content": results}]
        return {"messages": [*request["messages"], *turn], **more}
    outputs = [
        {"type": "function_call_output", "call_id": item["call_id"], "output": "mine"}
        for item in whole["output"]
        if item["type"] == "function_call"
    ]
    given = request["input"]
    listed = [{"role": "user", "content": given}] if isinstance(given, str) else given
    return {"input": [*listed, *whole["output"], *outputs], **more}


def outline(kind: Kind, body: dict[str, Any]) -> list[str]:
    """Return the turns of a request in a few words that are the same for all formats."""
    words: list[str] = []
    if kind is CHAT:
        for message in body["messages"]:
            if message["role"] == "tool":
                words.append(f"result {message['tool_call_id']}")
            else:
                words += [f"{message['role']} {message['content']}"] * bool(message["content"])
                words += [f"call {one['id']}" for one in message.get("tool_calls", [])]
    elif kind is MESSAGES:
        for message in body["messages"]:
            content = message["content"]
            for block in [{"type": "text", "text": content}] if isinstance(content, str) else content:
                match block["type"]:
                    case "text":
                        words.append(f"{message['role']} {block['text']}")
                    case "tool_use":
                        words.append(f"call {block['id']}")
                    case "tool_result":
                        words.append(f"result {block['tool_use_id']}")
                    case other:
                        words.append(other)
    else:
        for item in body["input"]:
            match item.get("type", "message"):
                case "message":
                    content = item["content"]
                    said = content if isinstance(content, str) else "".join(part["text"] for part in content)
                    words.append(f"{item['role']} {said}")
                case "function_call":
                    words.append(f"call {item['call_id']}")
                case "function_call_output":
                    words.append(f"result {item['call_id']}")
                case other:
                    words.append(other)
    return words


def mixed(kind: Kind, *, streamed: bool, memory: OwnMemory, **members: Any) -> Played:
    calls = [call("c1"), own_call("own1"), call("c2"), own_call("own2")]
    return play(kind, [Reply(text="So:", tool_calls=calls)], streamed=streamed, memory=memory, **members)


def test_injected_calls_of_a_mixed_turn_are_run_and_put_back(kind: Kind, streamed: bool) -> None:
    """The client sees its own calls only, and each later request has the results of all calls once."""
    memory = remembering()
    first = mixed(kind, streamed=streamed, memory=memory)
    assert [one.id for one in first.calls] == ["c1", "c2"]
    assert [id_ for id_, _, _ in first.seen().calls] == ["own1", "own2"]

    asked = history(first)
    second = play(kind, [Reply(tool_calls=[own_call("own3")])], streamed=streamed, memory=memory, **asked)
    words = outline(kind, second.bodies[0])
    assert words[:2] == ["user hi", "assistant So:"]
    assert sorted(words[2:6]) == ["call c1", "call c2", "call own1", "call own2"] or kind is RESPONSES
    assert sorted(words[2:]) == sorted(f"{w} {c}" for w in ("call", "result") for c in ("c1", "c2", "own1", "own2"))
    for id_ in ("c1", "c2", "own1", "own2"):
        assert words.index(f"call {id_}") < words.index(f"result {id_}")
    assert '"result of c1"' in json.dumps(second.bodies[0])

    third = play(kind, [FINAL], streamed=streamed, memory=memory, **history(second))
    assert outline(kind, third.bodies[0])[: len(words)] == words
    assert third.seen().text == "Done."


def test_what_earlier_rounds_found_is_put_back_where_it_was(kind: Kind, streamed: bool) -> None:
    """Earlier rounds return in their original order: nothing is asked twice, and the prompt cache is used."""
    memory = remembering()
    replies = [
        Reply(text="One.", thinking="hm", tool_calls=[call("c1"), call("c2")]),
        Reply(tool_calls=[call("c3")]),
        Reply(text="Three.", thinking="ha", tool_calls=[own_call("own")]),
    ]
    first = play(kind, replies, streamed=streamed, memory=memory)
    second = play(kind, [FINAL], streamed=streamed, memory=memory, **history(first))
    thinking = {CHAT: "", MESSAGES: "thinking", RESPONSES: "reasoning"}[kind]
    expected = ["user hi", thinking, "assistant One.", "call c1", "call c2", "result c1", "result c2"]
    expected += ["call c3", "result c3", thinking, "assistant Three.", "call own", "result own"]
    assert outline(kind, second.bodies[0]) == [word for word in expected if word]
    if kind is not RESPONSES:
        before, now = first.bodies[-1]["messages"], second.bodies[0]["messages"]
        assert now[: len(before)] == before


def test_a_history_that_the_client_changed_gets_what_can_be_put_back(streamed: bool) -> None:
    """In a history that the client edited no text moves, and every restored call has a result."""
    replies = [
        Reply(text="One.", thinking="hm", tool_calls=[call("c1")]),
        Reply(text="Two.", tool_calls=[own_call("own"), call("c2")]),
    ]
    for kind, text, expected in (
        (
            CHAT,
            '"content": "One.',
            ["user hi", "call c1", "result c1", "assistant !One.\n\nTwo.", "call own", "call c2"],
        ),
        (
            MESSAGES,
            '"text": "One.',
            ["user hi", "thinking", "assistant !One.", "assistant Two.", "call own", "call c2"],
        ),
        (
            RESPONSES,
            '"text": "One.',
            ["user hi", "reasoning", "assistant !One.", "assistant Two.", "call own", "call c2"],
        ),
    ):
        memory = remembering()
        first = play(kind, replies, streamed=streamed, memory=memory)
        changed = json.loads(json.dumps(history(first)).replace(text, text.replace("One", "!One")))
        words = outline(kind, play(kind, [FINAL], streamed=streamed, memory=memory, **changed).bodies[0])
        assert words[: len(expected)] == expected
        assert sorted(words[len(expected) :]) == ["result c2", "result own"]


def test_a_client_that_leaves_reasoning_out(streamed: bool) -> None:
    """Calls return at their places even if the client drops reasoning, as Codex does without encrypted content."""
    memory = remembering()
    replies = [
        Reply(text="One.", thinking="hm", tool_calls=[call("c1")]),
        Reply(thinking="ha", tool_calls=[own_call()]),
    ]
    first = play(RESPONSES, replies, streamed=streamed, memory=memory)
    asked = history(first)
    asked["input"] = [item for item in asked["input"] if item.get("type") != "reasoning"]
    words = outline(RESPONSES, play(RESPONSES, [FINAL], streamed=False, memory=memory, **asked).bodies[0])
    assert words == ["user hi", "assistant One.", "call c1", "result c1", "call call_own", "result call_own"]


@pytest.mark.parametrize("state", [{"previous_response_id": "resp_x"}, {"conversation": "conv_x"}])
def test_a_provider_that_remembers_gets_the_missing_results_only(streamed: bool, state: dict[str, Any]) -> None:
    """With `previous_response_id` or a conversation only the missing results are added: the provider has the calls."""
    memory = remembering()
    first = mixed(RESPONSES, streamed=streamed, memory=memory)
    outputs = [item for item in history(first)["input"] if item.get("type") == "function_call_output"]
    second = play(RESPONSES, [FINAL], streamed=streamed, memory=memory, input=outputs, **state)
    words = outline(RESPONSES, second.bodies[0])
    assert sorted(words) == ["result c1", "result c2", "result own1", "result own2"]


SEARCH = {"type": "tool_search_call", "id": "ts_1", "call_id": "call_search", "execution": "client", "arguments": {}}


def test_a_tool_search_of_the_clients_own() -> None:
    """A tool search that the client executes ends the rounds, and its output brings the hidden result back."""
    memory = remembering()
    use = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "bmcp_box_echo", "arguments": "{}"}
    output = json.dumps({"id": "resp_1", "object": "response", "status": "completed", "output": [use, SEARCH]})
    play(RESPONSES, [output.encode()], streamed=False, memory=memory)
    found = {"type": "tool_search_output", "call_id": "call_search", "execution": "client", "tools": []}
    asked: dict[str, Any] = {"previous_response_id": "resp_1", "input": [found]}
    [body] = play(RESPONSES, [FINAL], streamed=False, memory=memory, **asked).bodies
    assert [item["call_id"] for item in body["input"]] == ["call_search", "c1"]
    assert body["input"][1]["type"] == "function_call_output"


def test_without_the_memory_the_request_goes_up_as_it_is(kind: Kind, streamed: bool) -> None:
    """Without a memory, or for another principal with the same call ids, the request is sent unchanged."""
    memory = ToolMemory()
    first = mixed(kind, streamed=streamed, memory=memory.of(OWNER))
    asked = history(first)
    for stranger in (("bob", "", "any"), ("alice", "k2", "any"), ("alice", "", "other")):
        for other in (memory.of(stranger), remembering()):
            second = play(kind, [FINAL], streamed=streamed, memory=other, **asked)
            name = "input" if kind is RESPONSES else "messages"
            assert second.bodies[0][name] == asked[name]


def test_a_client_that_splits_the_turn_gets_each_result_once(kind: Kind) -> None:
    """A client that splits the turn into a message for each call gets each call and result once."""
    memory = remembering()
    asked = history(mixed(kind, streamed=False, memory=memory))
    if kind is RESPONSES:
        first, second, *outputs = asked["input"][2:]
        asked["input"][2:] = [first, outputs[0], second, outputs[1]]
    else:
        user, turn, *results = asked["messages"]
        member = "tool_calls" if kind is CHAT else "content"
        calls = turn[member][-2:]
        answers = results if kind is CHAT else [{"role": "user", "content": [one]} for one in results[0]["content"]]
        turns = [
            {**turn, member: [*turn[member][:-2], calls[0]]},
            {"role": "assistant", "content": None, member: calls[1:]},
        ]
        asked["messages"] = [user, turns[0], answers[0], turns[1], answers[1]]
    words = outline(kind, play(kind, [FINAL], streamed=False, memory=memory, **asked).bodies[0])
    for id_ in ("c1", "c2", "own1", "own2"):
        assert (words.count(f"call {id_}"), words.count(f"result {id_}")) == (1, 1)


@pytest.mark.parametrize("id_", ["call_0", "functions.read:12", "3", "", "read-1"])
def test_ids_that_come_again_are_not_remembered(kind: Kind, id_: str) -> None:
    """Call ids that providers count anew in each conversation are not remembered, so that conversations do not mix."""
    memory = remembering()
    first = play(kind, [Reply(tool_calls=[call("c1"), own_call(id_)])], streamed=False, memory=memory)
    assert [one.id for one in first.calls] == ["c1"]
    assert memory.empty


@pytest.mark.parametrize("id_", ["toolu_01A09q90qw90lq917835lq9", "call_Ab1", "365174485", "D681PevKs", "tool-9f0a"])
def test_ids_that_do_not_come_again_are_remembered(id_: str) -> None:
    """Random call ids, as from the vendors, Mistral and LM Studio, are remembered."""
    memory = remembering()
    play(CHAT, [Reply(tool_calls=[call("c1"), own_call(id_)])], streamed=False, memory=memory)
    assert memory.held(id_) is not None


def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least recently used entry is dropped first, and an entry over the limit is not stored."""
    monkeypatch.setattr(tool_memory, "HELD_SIZE", 3000)
    mine = ToolMemory().of(OWNER)
    big = "x" * 2000
    for number in range(3):
        calls = [call(f"c{number}", {"text": big}), own_call(f"own{number}")]
        play(CHAT, [Reply(tool_calls=calls)], streamed=False, memory=mine)
    assert [mine.held(f"own{number}") is not None for number in range(3)] == [False, False, True]
    play(CHAT, [Reply(tool_calls=[call("c9", {"text": big * 2}), own_call("own9")])], streamed=False, memory=mine)
    assert mine.held("own9") is None
    assert mine.held("own2") is not None


def test_requests_are_restored_also_where_no_tools_are_injected_any_more(kind: Kind) -> None:
    """The history is restored even if no tools are injected any more, for example after their server is gone."""
    memory = remembering()
    first = mixed(kind, streamed=False, memory=memory)
    body = kind.request(streamed=False, **history(first))
    restored = finish(kind.format.restored(body, memory))
    assert {"call c1", "result c1", "call c2", "result c2"} <= set(outline(kind, json.loads(restored[:])))
    assert finish(kind.format.restored(body, remembering())) is body


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("odd", ["null", "7", '"text"', "[]", "[7, null, []]", '[{"role": "assistant"}]'])
def test_odd_histories_pass(kind: Kind, odd: str) -> None:
    """An invalid history is passed on, because refusing it is the provider's part."""
    memory = remembering()
    mixed(kind, streamed=False, memory=memory)
    name = "input" if kind is RESPONSES else "messages"
    body = f'{{"model": "m", "{name}": {odd}}}'.encode()
    assert finish(kind.format.restored(body, memory)) == body
