"""Messages, block by block: thinking, signatures and server tools."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fastapi_aibridge.formats.rounds import AnsweredCall
from fastapi_aibridge.testing import Reply
from fastapi_aibridge.tools import Image, Text, ToolResult

from .driving import MESSAGES, call, play

USAGE = {"input_tokens": 3, "output_tokens": 1, "cache_read_input_tokens": 2, "cache_creation_input_tokens": 0}
THINKING = {"type": "thinking", "thinking": "Hm — hm", "signature": "c2ln+/=="}
REDACTED = {"type": "redacted_thinking", "data": "b3BhcXVl"}
SEARCH = {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {"query": "q"}}
FOUND = {
    "type": "web_search_tool_result",
    "tool_use_id": "srv_1",
    "content": [{"type": "web_search_result", "title": "t", "url": "http://x", "encrypted_content": "EqgfCioIARgB"}],
}
CITATION = {
    "type": "web_search_result_location",
    "url": "http://x",
    "title": "t",
    "encrypted_index": "Eo8",
    "cited_text": "c",
}
CITED = {"type": "text", "text": "Found.", "citations": [CITATION]}
USE = {"type": "tool_use", "id": "c1", "name": "bmcp_box_echo", "input": {"text": "x"}}
CONTENT: list[dict[str, Any]] = [THINKING, REDACTED, SEARCH, FOUND, CITED, USE]


def event(kind: str, **members: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **members})}\n\n".encode()


def deltas(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the start of a block and its deltas."""
    match block["type"]:
        case "thinking":
            words = [{"type": "thinking_delta", "thinking": piece} for piece in ("Hm ", "— hm")]
            return {"type": "thinking", "thinking": "", "signature": ""}, [
                *words,
                {"type": "signature_delta", "signature": block["signature"]},
            ]
        case "text":
            cited = [{"type": "citations_delta", "citation": one} for one in block.get("citations", [])]
            return {"type": "text", "text": "", **({"citations": []} if cited else {})}, [
                *cited,
                {"type": "text_delta", "text": block["text"]},
            ]
        case "tool_use" | "server_tool_use":
            written = json.dumps(block["input"])
            pieces = [{"type": "input_json_delta", "partial_json": piece} for piece in ("", written[:4], written[4:])]
            return {**block, "input": {}}, pieces
    return block, []


def stream_of(content: list[dict[str, Any]], stop: str | None, first: int = 0) -> bytes:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": USAGE}
    events = [event("message_start", message={**message, "stop_reason": None, "stop_sequence": None})]
    for index, block in enumerate(content, first):
        start, rest = deltas(block)
        events.append(event("content_block_start", index=index, content_block=start))
        events += [event("content_block_delta", index=index, delta=delta) for delta in rest]
        events.append(event("content_block_stop", index=index))
        events.append(event("ping"))
    events.append(
        event("message_delta", delta={"stop_reason": stop, "stop_sequence": None}, usage={"output_tokens": 9})
    )
    return b"".join([*events, event("message_stop")])


def answer_of(content: list[dict[str, Any]], stop: str | None) -> bytes:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": content, "usage": USAGE}
    return json.dumps({**message, "stop_reason": stop, "stop_sequence": None}).encode()


def test_what_the_model_said_goes_back_word_for_word(streamed: bool) -> None:
    """Signed and redacted thinking, server searches and citations are sent back unchanged."""
    answer = stream_of(CONTENT, "tool_use") if streamed else answer_of(CONTENT, "tool_use")
    played = play(MESSAGES, [answer, Reply(text="Done.")], streamed=streamed)
    assert played.bodies[1]["messages"][1] == {"role": "assistant", "content": CONTENT}
    content = played.seen().whole["content"]
    assert [block["type"] for block in content] == [*(block["type"] for block in CONTENT[:-1]), "text"]
    assert content[0] == THINKING
    assert content[3]["content"][0]["encrypted_content"] == "EqgfCioIARgB"


def test_blank_text_is_not_sent_back(streamed: bool) -> None:
    """Blank text is not sent back, because the API refuses it."""
    content: list[dict[str, Any]] = [{"type": "text", "text": "\n\n"}, USE]
    answer = stream_of(content, "tool_use") if streamed else answer_of(content, "tool_use")
    played = play(MESSAGES, [answer, Reply(text="Done.")], streamed=streamed)
    assert played.bodies[1]["messages"][1]["content"] == [USE]


def test_pings_errors_and_unknown_events_keep_their_place() -> None:
    """Pings, errors and unknown events of a single round are relayed in their places."""
    whole = stream_of(CONTENT[:-1], "end_turn", first=1)
    delta = whole.index(b"event: message_delta")
    body = (
        whole[:delta]
        + event("novelty", index=9)
        + whole[delta:].replace(b"event: message_stop", b": x\n\nevent: ping\ndata: {}\n\nevent: message_stop")
    )
    assert play(MESSAGES, [body], streamed=True).body == body
    broken = whole[: whole.index(b"event: message_stop")] + event("error", error={"type": "x", "message": "y"})
    assert play(MESSAGES, [broken], streamed=True).body == broken


def test_several_message_deltas_are_one_at_the_end() -> None:
    """Several message deltas become one at the end, with the last counts of each round summed."""
    first = stream_of([USE], "tool_use").replace(
        b"event: message_stop",
        event("message_delta", delta={"stop_reason": None}, usage={"output_tokens": 10}) + b"event: message_stop",
    )
    played = play(MESSAGES, [first, stream_of([CITED], "end_turn")], streamed=True)
    assert len(played.calls) == 1
    (delta,) = [one for one in played.events if one["type"] == "message_delta"]
    assert delta["usage"] == {**{key: 2 * n for key, n in USAGE.items()}, "output_tokens": 19}
    assert play(MESSAGES, [first], streamed=True, last=1).body.count(b"event: message_delta") == 1


@pytest.mark.parametrize("stop", ["end_turn", None, "stop"])
def test_calls_are_run_whatever_a_compatible_server_calls_their_reason(streamed: bool, stop: str | None) -> None:
    """Calls are run after any stop reason or none; otherwise the client would get no response."""
    first, last = (stream_of, stream_of) if streamed else (answer_of, answer_of)
    played = play(MESSAGES, [first([USE], stop), last([CITED], "end_turn")], streamed=streamed)
    assert len(played.calls) == 1
    assert played.seen().finish == "end_turn"


def test_a_container_that_is_only_its_name_is_named_in_the_next_round() -> None:
    """A container given as its name instead of an object is named in the next round."""
    first = json.dumps({**json.loads(answer_of([USE], "tool_use")), "container": "container_1"}).encode()
    played = play(MESSAGES, [first, answer_of([CITED], "end_turn")], streamed=False)
    assert played.bodies[1]["container"] == "container_1"


@pytest.mark.parametrize("stop", ["max_tokens", "stop_sequence", "refusal", "pause_turn"])
def test_other_stop_reasons_pass(streamed: bool, stop: str) -> None:
    """A message that was cut off or paused ends the rounds with its own stop reason."""
    answer = stream_of(CONTENT, stop) if streamed else answer_of(CONTENT, stop)
    played = play(MESSAGES, [answer], streamed=streamed)
    assert played.calls == []
    assert played.seen().finish == stop
    assert b"bmcp_" not in played.body


def test_images_and_errors_have_the_shape_that_the_api_takes() -> None:
    """A result's images are blocks, an error holds only text, and no text is blank."""

    def respond(one: Any) -> AnsweredCall:
        image, blank = Image("aGk=", "image/png"), Text(" ")
        match one.id:
            case "picture":
                return AnsweredCall(call=one, result=ToolResult(content=(blank, image)))
            case "broken":
                return AnsweredCall(call=one, result=ToolResult(content=(Text("no"), image), is_error=True))
            case "blank":
                return AnsweredCall(call=one, result=ToolResult(content=(blank,), is_error=True))
        return AnsweredCall(call=one, result=ToolResult(content=()))

    calls = [call(id_) for id_ in ("picture", "broken", "empty", "blank")]
    played = play(MESSAGES, [Reply(tool_calls=calls), Reply(text="x")], streamed=False, respond=respond)
    picture, broken, empty, silent = played.bodies[1]["messages"][2]["content"]
    source = {"type": "base64", "media_type": "image/png", "data": "aGk="}
    assert picture["content"] == [{"type": "image", "source": source}]
    assert broken["content"] == [{"type": "text", "text": "no\n[image, image/png]"}]
    assert broken["is_error"] is True
    assert empty["content"] == silent["content"] == [{"type": "text", "text": "(no output)"}]
