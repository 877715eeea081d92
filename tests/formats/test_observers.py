"""Properties of all formats' observers: no input makes them fail, and the grouping of a stream changes nothing."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_aibridge import sse
from fastapi_aibridge.errors import GatewayError, UpstreamUnreachable
from fastapi_aibridge.formats import chat_completions, messages, responses
from fastapi_aibridge.formats.format import Format
from fastapi_aibridge.formats.lenient import load
from fastapi_aibridge.formats.request import ModelRequest

from .observing import PLAUSIBLE, answered, blocks, lean, observer, request_of, seen, streamed, tools
from .parsing import parse

FORMATS: list[Format] = [chat_completions, messages, responses]
each_format = pytest.mark.parametrize("format_", FORMATS, ids=lambda format_: format_.name)

INDEX = st.integers(0, 2) | st.none()
ID = st.sampled_from(["", "call_a", "call_b"]) | st.none()
TEXT = st.sampled_from(
    ["Hi", "", '{"a":', "1}", "data: [DONE]", '"finish_reason":"stop"', '"usage":{}', "response.completed", "error"]
)
USAGE = st.fixed_dictionaries(
    {},
    optional={
        "prompt_tokens": st.integers(0, 99),
        "completion_tokens": st.integers(0, 99),
        "input_tokens": st.integers(0, 99) | st.none(),
        "output_tokens": st.integers(0, 99),
    },
)

_CALL = st.fixed_dictionaries(
    {},
    optional={
        "index": INDEX,
        "id": ID,
        "function": st.fixed_dictionaries({"arguments": TEXT}, optional={"name": st.just("f")}),
        "custom": st.fixed_dictionaries({"input": TEXT}, optional={"name": st.just("c")}),
    },
)
_CHOICE = st.fixed_dictionaries(
    {"index": st.integers(0, 1)},
    optional={
        "delta": st.fixed_dictionaries(
            {}, optional={"content": TEXT, "tool_calls": st.lists(_CALL, max_size=2), "function_call": _CALL}
        ),
        "finish_reason": st.sampled_from([None, "stop"]),
    },
)
_CHUNK = st.fixed_dictionaries(
    {"id": st.just("chatcmpl-1"), "choices": st.lists(_CHOICE, max_size=2)},
    optional={"usage": USAGE | st.none(), "error": st.just({"message": "m"}) | st.none()},
)
_MESSAGE_EVENT = st.one_of(
    st.fixed_dictionaries(
        {
            "type": st.just("message_start"),
            "message": st.fixed_dictionaries({"id": st.just("msg_1"), "usage": USAGE}),
        }
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("content_block_start"),
            "index": st.integers(0, 2),
            "content_block": st.fixed_dictionaries(
                {"type": st.sampled_from(["text", "tool_use", "thinking"]), "id": ID, "name": TEXT}
            ),
        }
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("content_block_delta"),
            "index": st.integers(0, 2),
            "delta": st.one_of(
                st.fixed_dictionaries({"type": st.just("text_delta"), "text": TEXT}),
                st.fixed_dictionaries({"type": st.just("thinking_delta"), "thinking": TEXT}),
                st.fixed_dictionaries({"type": st.just("input_json_delta"), "partial_json": TEXT}),
            ),
        }
    ),
    st.fixed_dictionaries({"type": st.just("message_delta"), "usage": USAGE}),
    st.sampled_from([{"type": "message_stop"}, {"type": "ping"}, {"type": "error", "error": {"message": "m"}}]),
)
_ITEM = st.fixed_dictionaries(
    {"type": st.sampled_from(["function_call", "custom_tool_call", "reasoning", "message", "shell_call"])},
    optional={
        "call_id": ID,
        "name": TEXT,
        "arguments": TEXT,
        "input": TEXT,
        "phase": st.just("commentary"),
        "summary": st.just([{"text": "why"}]),
        "content": st.just([{"type": "output_text", "text": "so"}]),
    },
)
_RESPONSE = st.fixed_dictionaries(
    {"id": st.just("resp_1")},
    optional={"usage": USAGE, "output": st.lists(_ITEM, max_size=2), "error": st.just({"message": "m"}) | st.none()},
)
_RESPONSE_EVENT = st.one_of(
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(["created", "in_progress", "completed", "failed", "incomplete", "cancelled"]).map(
                lambda word: f"response.{word}"
            ),
            "response": _RESPONSE,
            "sequence_number": st.integers(0, 50),
        }
    ),
    st.fixed_dictionaries({"type": st.just("response.output_item.done"), "item": _ITEM}),
    st.fixed_dictionaries({"type": st.just("response.output_text.delta"), "delta": TEXT}),
    st.just({"type": "error", "message": "m"}),
)
EVENTS: dict[str, st.SearchStrategy[Any]] = {
    "chat_completions": _CHUNK,
    "messages": _MESSAGE_EVENT,
    "responses": _RESPONSE_EVENT,
}
DONE = st.sampled_from([b"data: [DONE]\n\n", b"data:[DONE]\r\n\r\n"])


@each_format
@lean
@given(data=st.data())
def test_grouping_changes_nothing(format_: Format, data: st.DataObject) -> None:
    """Events one by one, all at once or in groups give the same facts, and the same bytes for the client."""
    event = st.one_of(blocks(EVENTS[format_.name]), DONE)
    events: list[bytes] = data.draw(st.lists(event, max_size=8))
    asked: bool = data.draw(st.booleans())
    groups: list[bytes] = []
    for one in events:
        together: bool = data.draw(st.booleans())
        if groups and together:
            groups[-1] += one
        else:
            groups.append(one)
    results = []
    for grouping in (events, [b"".join(events)], groups):
        watching = observer(format_, stream_options={"include_usage": asked})
        relayed = b"".join([watching.stream(block) for block in grouping])
        results.append((relayed, seen(watching)))
    assert results[0] == results[1] == results[2]
    if asked or format_ is not chat_completions:
        assert results[0][0] == b"".join(events)


@each_format
@lean
@given(data=st.data())
def test_what_can_be_passed_on_unread_says_nothing(format_: Format, data: st.DataObject) -> None:
    """An event that is passed on unparsed would not have changed the facts."""
    values = data.draw(st.lists(EVENTS[format_.name], max_size=6))
    plain, marked = observer(format_), observer(format_)
    for value in values:
        plain.stream(f"data: {json.dumps(value)}\n\n".encode())
        # A comment that contains every marker causes the event to be parsed.
        markers = ' "error" [DONE] "usage":1 response.created "message_start"'
        marked.stream(f":{markers}\ndata: {json.dumps(value)}\n\n".encode())
    assert seen(plain) == seen(marked)


@each_format
@lean
@given(
    block=blocks(PLAUSIBLE) | st.binary(), body=st.binary() | PLAUSIBLE.map(lambda value: json.dumps(value).encode())
)
def test_no_upstream_makes_an_observer_fail(format_: Format, block: bytes, body: bytes) -> None:
    """An observer gives its facts and can write an error event, whatever the upstream sent."""
    watching = observer(format_)
    if format_ is not chat_completions:
        assert watching.stream(block) == block
    watching.stream(block)
    watching.facts()
    assert sse.data_of(watching.error_event(UpstreamUnreachable("gone")))
    watching.blocking(body)
    watching.facts()
    assert isinstance(watching.message_id, str)
    assert watching.error is None or isinstance(watching.error, str)


@each_format
@lean
@given(body=st.binary() | PLAUSIBLE.map(lambda value: json.dumps(value).encode()))
def test_no_request_makes_a_parser_fail(format_: Format, body: bytes) -> None:
    """A request is read or refused with 400."""
    status = 400
    try:
        request = parse(format_, body)
        assert isinstance(request, ModelRequest)
    except GatewayError as error:
        status = error.status
    assert status == 400


@each_format
@lean
@given(
    members=st.dictionaries(st.sampled_from(["messages", "input", "stream", "stream_options", "metadata"]), PLAUSIBLE)
)
def test_a_request_with_a_model_is_read(format_: Format, members: dict[str, Any]) -> None:
    """A request with a model is accepted: other errors in it are the vendor's to refuse."""
    members.pop("model", None)
    body = json.dumps({"model": "gpt-5", **members}).encode()
    request = parse(format_, body)
    assert request.model == "gpt-5"
    assert all(one.text for one in request.prompts)
    if not request.streaming or format_ is not chat_completions:
        assert request.body == body


@each_format
@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b'{"model":"m"}x', "invalid_json"),
        (b'{"model":"\xff"}', "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b"[]", "invalid_request"),
        (b'"m"', "invalid_request"),
        (b"{}", "missing_model"),
        (b'{"model":""}', "missing_model"),
        (b'{"model":5}', "missing_model"),
        (b'{"model":null}', "missing_model"),
    ],
)
def test_refused_requests(format_: Format, body: bytes, code: str) -> None:
    """A body that is no JSON, no object or names no model is refused with 400 and a code for the reason."""
    with pytest.raises(GatewayError) as refused:
        parse(format_, body)
    assert (refused.value.status, refused.value.code) == (400, code)


@each_format
def test_counts_that_are_none_are_not_recorded(format_: Format) -> None:
    """Booleans, negative numbers, fractions, texts and excessive numbers are not recorded as token counts."""
    odd = [True, -1, 1.5, "7", 10**15, 2**64, None]
    for number in odd:
        names = ("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "cache_read_input_tokens")
        usage = {"total_tokens": 1, **dict.fromkeys(names, number)}
        watching = observer(format_)
        watching.blocking(json.dumps({"id": "x", "usage": usage}).encode())
        [recorded] = watching.facts().token_usages
        assert (recorded.input_tokens, recorded.output_tokens, recorded.cache_read_tokens) == (0, 0, 0)
        assert type(recorded.input_tokens) is int


@each_format
@pytest.mark.parametrize(
    "odd",
    [b"NaN", b"-Infinity", b'"\\ud83d"', b'"\xff"', b'{"\\ude00": [1]}', b"1" * 5000 + b', "y": NaN'],
    ids=["NaN", "infinity", "half a pair", "no UTF-8", "half a pair in a name", "a long number"],
)
def test_what_is_nearly_json_is_read(format_: Format, odd: bytes) -> None:
    """NaN, lone surrogates and invalid UTF-8, as some encoders write them, do not keep usage from being recorded."""
    body = b'{"id": "x", "usage": {"input_tokens": 7, "prompt_tokens": 7, "total_tokens": 9}, "odd": %b}' % odd
    watching = observer(format_)
    assert watching.blocking(body)
    [recorded] = watching.facts().token_usages
    assert (watching.message_id, recorded.input_tokens) == ("x", 7)
    orjson.dumps(load(body))


@each_format
@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b'{"id": ', b"[" * 100_000])
def test_what_is_no_message_at_all_is_told_apart(format_: Format, body: bytes) -> None:
    """A body that is no JSON object is reported as no message; any object may be one."""
    assert not observer(format_).blocking(body)
    assert observer(format_).blocking(b"{}")


@each_format
def test_the_model_and_the_stream_flag_are_read(format_: Format) -> None:
    """Only the value `true` asks for a stream."""
    assert parse(format_, request_of(format_)).streaming
    for value in (False, None, "true", 1):
        assert not parse(format_, request_of(format_, stream=value)).streaming


def test_a_call_without_arguments_has_an_empty_object_of_them() -> None:
    """Empty arguments, which some providers send for a tool without parameters, are recorded as `{}`."""
    function = {"name": "now", "arguments": ""}
    call = {"index": 0, "id": "call_a", "type": "function", "function": function}
    assert tools(streamed(chat_completions, {"id": "x", "choices": [{"delta": {"tool_calls": [call]}}]})) == [
        ("call_a", "now", {})
    ]
    assert tools(answered(chat_completions, {"choices": [{"message": {"tool_calls": [call]}}]})) == [
        ("call_a", "now", {})
    ]
    item = {"type": "function_call", "call_id": "call_a", "name": "now", "arguments": ""}
    assert tools(streamed(responses, {"type": "response.output_item.done", "item": item})) == [("call_a", "now", {})]
    assert tools(answered(responses, {"output": [item]})) == [("call_a", "now", {})]
    block = {"type": "tool_use", "id": "call_a", "name": "now", "input": {}}
    start = {"type": "content_block_start", "index": 0, "content_block": block}
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": ""}}
    assert tools(streamed(messages, start, delta)) == [("call_a", "now", {})]
