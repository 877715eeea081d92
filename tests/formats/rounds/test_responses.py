"""Responses, item by item: reasoning, ids, hosted tools and sequence numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from fastapi_aibridge.errors import GatewayError
from fastapi_aibridge.formats.rounds import AnsweredCall
from fastapi_aibridge.formats.scanner import finish
from fastapi_aibridge.testing import Reply
from fastapi_aibridge.tools import Image, Text, ToolResult

from ..parsing import parse
from .driving import NAMES, RESPONSES, answer_to, call, play, remembering, woven

REASONING = {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "gAAA"}
BARE = {"id": "rs_2", "type": "reasoning", "summary": []}
SEARCH = {"id": "ws_1", "type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "q"}}
SHELL = {"id": "sh_1", "type": "shell_call", "call_id": "hosted", "action": {}, "status": "completed"}
SHELL_OUTPUT = {"id": "so_1", "type": "shell_call_output", "call_id": "hosted", "output": []}
USE = {
    "id": "fc_1",
    "type": "function_call",
    "call_id": "c1",
    "name": "bmcp_box_echo",
    "arguments": "{}",
    "status": "completed",
}
CUSTOM = {"id": "ct_1", "type": "custom_tool_call", "call_id": "own", "name": "patch", "input": "*** Begin"}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "Done.", "annotations": []}],
}


def response(output: list[dict[str, Any]], status: str = "completed", **members: Any) -> dict[str, Any]:
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": "m",
        "status": status,
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": None,
        **members,
    }


def stream_of(output: list[dict[str, Any]], *, start: int = 0, empty_end: bool = False, **members: Any) -> bytes:
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": response([], "in_progress", **members)},
        {"type": "response.in_progress", "response": response([], "in_progress", **members)},
    ]
    for index, item in enumerate(output):
        events.append({"type": "response.output_item.added", "output_index": index, "item": item})
        events.append({"type": f"response.{item['type']}.novelty", "output_index": index, "item_id": item["id"]})
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    events.append({"type": "response.completed", "response": response([] if empty_end else output, **members)})
    return b"".join(
        f"event: {one['type']}\ndata: {json.dumps({**one, 'sequence_number': number})}\n\n".encode()
        for number, one in enumerate(events, start)
    )


def answer_of(output: list[dict[str, Any]], **members: Any) -> bytes:
    return json.dumps(response(output, **members)).encode()


def answered(output: list[dict[str, Any]], *, streamed: bool, **members: Any) -> bytes:
    return stream_of(output, **members) if streamed else answer_of(output, **members)


@pytest.mark.parametrize("store", [None, True, False])
def test_reasoning_goes_back_where_the_provider_can_read_it(streamed: bool, store: bool | None) -> None:
    """Reasoning is sent back in its place, except what the provider has neither stored nor encrypted."""
    answer = answered([REASONING, BARE, SEARCH, USE], streamed=streamed)
    members: dict[str, Any] = {} if store is None else {"store": store}
    played = play(RESPONSES, [answer, answered([MESSAGE], streamed=streamed)], streamed=streamed, **members)
    _, *items, output = played.bodies[1]["input"]
    # OpenAI would look up a call by its id and miss its reasoning.
    nameless = {key: value for key, value in USE.items() if key != "id"}
    assert items == ([REASONING, SEARCH, nameless] if store is False else [REASONING, BARE, SEARCH, USE])
    assert output == {"type": "function_call_output", "call_id": "c1", "output": "result of c1"}
    final = played.events[-1]["response"] if streamed else played.answer
    seen = [item["type"] for item in final["output"]]
    assert seen == ["reasoning", "reasoning", "web_search_call", "message"]


def test_an_end_that_repeats_no_items(streamed: bool) -> None:
    """If the last event repeats no items, as from Codex' backend, the items seen one by one count."""
    played = play(
        RESPONSES, [stream_of([REASONING, USE], empty_end=True), stream_of([MESSAGE], empty_end=True)], streamed=True
    )
    assert [one.id for one in played.calls] == ["c1"]
    assert [item["id"] for item in played.events[-1]["response"]["output"]] == ["rs_1", "msg_1"]
    alone = stream_of([MESSAGE], empty_end=True)
    assert play(RESPONSES, [alone], streamed=True).body == alone


@pytest.mark.parametrize("start", [0, 1, 7])
def test_a_single_round_passes_as_it_came(start: int) -> None:
    """A single round is relayed byte for byte, whatever its numbers, indexes, events and items."""
    body = stream_of([REASONING, SEARCH, SHELL, SHELL_OUTPUT, CUSTOM, MESSAGE], start=start)
    body = body.replace(b'"output_index": 5', b'"output_index": 9') + b": bye\n\n"
    assert play(RESPONSES, [body], streamed=True).body == body
    bare = b'data: {"type": "response.created", "response": {}}\n\n: x\n\ndata: {"type": "novelty"}\n\n'
    assert play(RESPONSES, [bare], streamed=True).body == bare


def test_what_a_hosted_tool_did_is_no_call_for_the_client(streamed: bool) -> None:
    """A hosted tool's call with its output beside it is done and does not end the rounds."""
    answer = answered([SHELL, SHELL_OUTPUT, USE], streamed=streamed)
    played = play(RESPONSES, [answer, answered([MESSAGE], streamed=streamed)], streamed=streamed)
    assert len(played.asked) == 2


def test_a_custom_tool_of_the_client_ends_the_rounds(streamed: bool) -> None:
    """A call of the client's custom tool ends the rounds and reaches the client unchanged."""
    played = play(RESPONSES, [answered([USE, CUSTOM], streamed=streamed)], streamed=streamed)
    assert len(played.asked) == 1
    assert played.seen().whole["output"] == [CUSTOM]
    assert b"fc_1" not in played.body


def test_the_id_that_a_stream_showed_stands_for_the_last_response() -> None:
    """The id that a stream showed first is an alias of the last response's id in later requests."""
    memory = remembering()
    streams = [stream_of([USE], id="resp_a"), stream_of([USE], id="resp_b"), stream_of([MESSAGE], id="resp_c")]
    played = play(RESPONSES, streams, streamed=True, memory=memory)
    assert played.alias == ("resp_a", "resp_c")
    assert {event["response"]["id"] for event in played.events if "response" in event} == {"resp_a"}
    echo = stream_of([MESSAGE], previous_response_id="resp_c")
    later = play(RESPONSES, [echo], streamed=True, memory=memory, previous_response_id="resp_a")
    assert later.bodies[0]["previous_response_id"] == "resp_c"
    assert {e["response"]["previous_response_id"] for e in later.events if "response" in e} == {"resp_a"}
    other = play(RESPONSES, [echo], streamed=True, previous_response_id="resp_a")
    assert other.bodies[0]["previous_response_id"] == "resp_a"


def test_a_blocking_answer_has_the_id_that_is_valid_upstream() -> None:
    """A blocking response has the id of the last response, so that no alias is needed."""
    answers = [answer_of([USE], id="resp_a"), answer_of([MESSAGE], id="resp_b")]
    played = play(RESPONSES, answers, streamed=False)
    assert played.answer["id"] == "resp_b"
    assert played.alias is None


def test_a_conversation_gets_only_the_outputs(streamed: bool) -> None:
    """In a conversation only the outputs are sent, because the provider has stored the model's items."""
    outputs: list[list[dict[str, Any]]] = [[REASONING, USE], [USE], [MESSAGE]]
    answers = [answered(items, streamed=streamed) for items in outputs]
    played = play(RESPONSES, answers, streamed=streamed, conversation="conv_1")
    assert [body["input"] for body in played.bodies] == ["hi", *[[output()]] * 2]


def output(id_: str = "c1") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": id_, "output": f"result of {id_}"}


def test_images_are_parts_of_the_output() -> None:
    """Text and images of a result are parts of the output, in order and without blank text."""

    def respond(one: Any) -> AnsweredCall:
        return AnsweredCall(call=one, result=ToolResult(content=(Text("Look:"), Image("aGk=", "image/png"), Text(""))))

    played = play(RESPONSES, [Reply(tool_calls=[call()]), Reply(text="x")], streamed=False, respond=respond)
    assert played.bodies[1]["input"][-1]["output"] == [
        {"type": "input_text", "text": "Look:"},
        {"type": "input_image", "image_url": "data:image/png;base64,aGk="},
    ]


def test_the_gateways_own_error_event_is_numbered_on() -> None:
    """The sequence number of the gateway's error event continues the numbers that the client has seen."""
    request = parse(RESPONSES.format, RESPONSES.request(streamed=True))
    rounds = woven(RESPONSES, request.body[:], remembering())
    seen = rounds.stream(stream_of([USE]))
    finish(rounds.go_on([], last=False))
    seen += rounds.stream(stream_of([MESSAGE], start=40)[:-500].rpartition(b"\n\n")[0] + b"\n\n")
    seen += rounds.error_events(GatewayError(502, "broken", "it broke"))
    numbers = [json.loads(line[6:])["sequence_number"] for line in seen.splitlines() if line.startswith(b"data:")]
    assert numbers == list(range(len(numbers)))


def test_tool_lists_are_the_providers_spelling_of_the_clients_own() -> None:
    """The response's tool list has the client's tools as the provider spells them, without the injected ones."""
    mine = {"type": "function", "name": "read", "parameters": {}}
    spelled = {**mine, "strict": True, "description": None}
    ours = [{"type": "function", "name": name} for name in NAMES]
    played = play(RESPONSES, [answer_of([MESSAGE], tools=[*ours, spelled])], streamed=False, tools=[mine])
    assert played.answer["tools"] == [spelled]


@pytest.mark.parametrize("status", [None, "", "requires_action"])
def test_calls_are_run_where_a_compatible_server_says_nothing_of_the_status(status: str | None) -> None:
    """A completed call is run even if a compatible server gives no usual status."""
    first = json.dumps({**response([USE]), "status": status}).encode()
    played = play(RESPONSES, [first, Reply(text="done")], streamed=False)
    assert [one.id for one in played.calls] == ["c1"]
    assert played.seen().text == "done"


@pytest.mark.parametrize("repeats", [False, True])
def test_arguments_that_are_told_before_the_items_end_only(repeats: bool) -> None:
    """Arguments are read from their own events if a server does not repeat them in the item or the response."""
    bare = {**USE, "arguments": ""}
    about = {"output_index": 0, "item_id": "fc_1"}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": response([], "in_progress")},
        {"type": "response.output_item.added", "output_index": 0, "item": bare},
        {"type": "response.function_call_arguments.delta", **about, "delta": '{"text":"x"}'},
        {"type": "response.function_call_arguments.done", **about, "arguments": '{"text":"x"}'},
        *([{"type": "response.output_item.done", "output_index": 0, "item": bare}] if repeats else []),
        {"type": "response.completed", "response": response([])},
    ]
    first = b"".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in events)
    played = play(RESPONSES, [first, Reply(text="done")], streamed=True)
    assert [one.parsed() for one in played.calls] == [{"text": "x"}]
    assert played.bodies[1]["input"][-2]["arguments"] == '{"text":"x"}'


@pytest.mark.parametrize("both", [False, True])
def test_responses_that_are_done(both: bool) -> None:
    """`response.done`, the last event of some servers, ends a round, alone or after the usual end."""

    def done(output: list[dict[str, Any]]) -> bytes:
        stream = stream_of(output)
        end = stream[stream.rindex(b"event: ") :].replace(b"response.completed", b"response.done")
        return (stream if both else stream[: stream.rindex(b"event: ")]) + end

    played = play(RESPONSES, [done([USE]), done([MESSAGE])], streamed=True)
    assert [one.id for one in played.calls] == ["c1"]
    assert b"bmcp_" not in played.body
    assert played.events[-1]["type"] == "response.done"
    alone = done([MESSAGE])
    assert play(RESPONSES, [alone], streamed=True).body == alone


NOT_FOUND = b'{"error":{"message":"Item with id \'%s\' not found. Items are not persisted."}}'


@pytest.mark.parametrize("id_", ["rs_2", "fc_1", "msg_1"])
def test_ids_that_the_provider_does_not_know_are_taken_out(streamed: bool, id_: str) -> None:
    """If the provider does not know an item, ids and unencrypted reasoning are removed; encrypted reasoning stays."""
    rounds = woven(RESPONSES, RESPONSES.request(streamed=streamed), remembering())
    answer = answered([REASONING, BARE, MESSAGE, USE], streamed=streamed)
    _ = rounds.stream(answer) if streamed else rounds.blocking(answer)
    finish(rounds.go_on([answer_to(one) for one in rounds.calls()], last=False))
    sent = json.loads(rounds.body[:])["input"]
    assert [item.get("id") for item in sent] == [None, "rs_1", "rs_2", "msg_1", "fc_1", None]
    assert finish(rounds.take_out(NOT_FOUND % id_.encode()))
    _, sealed, *others = json.loads(rounds.body[:])["input"]
    assert sealed == REASONING
    assert [item["type"] for item in others] == ["message", "function_call", "function_call_output"]
    assert not any("id" in item for item in others)
    assert not finish(rounds.take_out(NOT_FOUND % id_.encode()))


def test_other_refusals_take_nothing_out(streamed: bool) -> None:
    """Only a refusal that names the id of a sent item changes the request."""
    rounds = woven(RESPONSES, RESPONSES.request(streamed=streamed), remembering())
    answer = answered([BARE, USE], streamed=streamed)
    _ = rounds.stream(answer) if streamed else rounds.blocking(answer)
    finish(rounds.go_on([answer_to(one) for one in rounds.calls()], last=False))
    before = rounds.body
    for refusal in (b"", b'{"error":{"message":"too long"}}', NOT_FOUND % b"rs_9"):
        assert not finish(rounds.take_out(refusal))
        assert rounds.body == before


def late(item: dict[str, Any], index: int) -> bytes:
    """Return the events of a call whose name and arguments come only with its last event."""
    about = {"output_index": index, "item_id": item["id"]}
    events: list[dict[str, Any]] = [
        {"type": "response.output_item.added", "output_index": index, "item": {**item, "name": "", "arguments": ""}},
        {"type": "response.function_call_arguments.delta", **about, "delta": "{}"},
        {"type": "response.output_item.done", "output_index": index, "item": item},
    ]
    return b"".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in events)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_calls_whose_names_come_late(order: tuple[int, int]) -> None:
    """A late name decides: an injected call stays hidden, and the client's own call is relayed."""
    items = [{**USE, "name": name, "id": f"fc_{name}", "call_id": name} for name in ("bmcp_box_echo", "read")]
    items = [items[place] for place in order]
    whole = stream_of(items)
    begin, end = whole.index(b"event: response.output_item.added"), whole.rindex(b"event: ")
    stream = whole[:begin] + b"".join(late(item, index) for index, item in enumerate(items)) + whole[end:]
    events = [json.loads(one.split(b"data: ")[1]) for one in stream.split(b"event: ")[1:]]
    stream = b"".join(
        f"event: {one['type']}\ndata: {json.dumps({**one, 'sequence_number': number})}\n\n".encode()
        for number, one in enumerate(events)
    )
    own = {"type": "function", "name": "read", "parameters": {}}
    for blocks in ([stream], [b"event: " + one for one in stream.split(b"event: ")[1:]]):

        def grouped(_: Sequence[bytes], blocks: list[bytes] = blocks) -> Iterator[bytes]:
            yield from blocks

        played = play(RESPONSES, [stream], streamed=True, grouped=grouped, tools=[own])
        assert [one.name for one in played.calls] == ["bmcp_box_echo"]
        assert b"bmcp_" not in played.body
        assert [one[:2] for one in played.seen().calls] == [("read", "read")]


def test_a_name_that_never_comes_holds_nothing_back() -> None:
    """A call without a name is held back only until the response ends or fails."""
    whole = stream_of([{**USE, "name": ""}])
    assert play(RESPONSES, [whole], streamed=True).body == whole
    cut = whole[: whole.rindex(b"event: ")]
    error = b'event: error\ndata: {"type":"error","message":"gone"}\n\n'
    assert play(RESPONSES, [cut + error], streamed=True).body == cut + error
    rounds = woven(RESPONSES, RESPONSES.request(streamed=True), remembering())
    got = rounds.stream(cut) + rounds.error_events(GatewayError(502, "x", "gone"))
    assert got.startswith(cut)
