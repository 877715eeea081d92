"""Chat Completions: reading and editing requests, hiding usage from the client, and recording responses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fastapi_aibridge.errors import GatewayError, UpstreamUnreachable
from fastapi_aibridge.formats import chat_completions
from fastapi_aibridge.recorder.records import TokenUsage

from .observing import answered, observer, streamed, tools
from .parsing import parse

USAGE = {"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10}


def prompts(*messages: Any) -> list[str]:
    said = parse(chat_completions, json.dumps({"model": "m", "messages": messages}).encode()).prompts
    return [one.text for one in said]


def chunk(delta: dict[str, Any] | None = None, *, choice: int = 0, **members: Any) -> dict[str, Any]:
    body = {"index": choice, "delta": delta or {}, "finish_reason": None, **members}
    return {"id": "chatcmpl-1", "choices": [body], "usage": None}


def call(**members: Any) -> dict[str, Any]:
    return chunk({"tool_calls": [members]})


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ("Hi", ["Hi"]),
        ("", []),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], ["a", "b"]),
        ([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "data:"}}], ["a"]),
        ([{"type": "image_url", "image_url": {"url": "data:"}}], []),
        ([], []),
        (None, []),
        (7, []),
    ],
)
def test_the_prompts_are_all_texts_of_the_last_message(content: Any, texts: list[str]) -> None:
    """The prompts are the content string or all text parts of the last message."""
    assert prompts({"role": "system", "content": "s"}, {"role": "user", "content": content}) == texts


def test_there_is_no_prompt_unless_the_user_spoke_last() -> None:
    """Requests within an agent's loop have no prompt, because their last message is not the user's."""
    user = {"role": "user", "content": "Hi"}
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "call_1"}]}
    assert prompts(user, {"role": "assistant", "content": "Yes?"}) == []
    assert prompts(user, call, {"role": "tool", "tool_call_id": "call_1", "content": "4"}) == []
    assert prompts() == []
    assert prompts("user") == []


def test_a_tool_result_names_its_call() -> None:
    """The last message's call id ties a request to the one whose tool call it answers."""
    body: dict[str, Any] = {"model": "m", "messages": [{"role": "tool", "tool_call_id": "call_1", "content": "4"}]}
    assert parse(chat_completions, json.dumps(body).encode()).correlating_tool_call_id == "call_1"
    body["messages"].append({"role": "user", "content": "And?"})
    assert parse(chat_completions, json.dumps(body).encode()).correlating_tool_call_id is None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'{"model":"m","stream":true}', b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}'),
        (
            b'{"stream_options": null , "model":"m","stream":true}',
            b'{"stream_options": {"include_usage":true} , "model":"m","stream":true}',
        ),
        (
            b'{"model":"m","stream":true,"stream_options":{"include_usage": false,"x":1.0}}\n',
            b'{"model":"m","stream":true,"stream_options":{"include_usage": true,"x":1.0}}\n',
        ),
        (
            b'{"model":"m","stream":true,"stream_options":{ }}',
            b'{"model":"m","stream":true,"stream_options":{ "include_usage":true}}',
        ),
        (
            b'{"model":"m","stream":true,"seed":12345678901234567890123,"stream_options":{"x":[]}}',
            b'{"model":"m","stream":true,"seed":12345678901234567890123,"stream_options":{"x":[],"include_usage":true}}',
        ),
    ],
)
def test_a_stream_is_asked_for_its_usage(before: bytes, after: bytes) -> None:
    """`include_usage` is written into the client's bytes, which otherwise stay as they are."""
    request = parse(chat_completions, before)
    assert request.body == after
    assert not request.usage_asked


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","stream":true,"stream_options": {"include_usage" : true}}',
        b'{"model":"m","stream":false,"stream_options":{"include_usage":false}}',
        b' {"model" : "m"} ',
    ],
)
def test_other_requests_go_up_as_they_are(body: bytes) -> None:
    """The body is not edited if the client asked for usage itself or wants no stream."""
    request = parse(chat_completions, body)
    assert request.body == body
    assert request.usage_asked


START = (
    b'data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}],"usage":null}\n\n'
)
ONLY = b'data: {"id":"chatcmpl-1","choices":[],"usage":{"prompt_tokens":8,"completion_tokens":2,"total_tokens":10}}\n\n'
DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    "only",
    [
        ONLY,
        ONLY.replace(b"\n", b"\r\n"),
        ONLY.replace(b"\n", b"\r"),
        ONLY.replace(b":", b": ").replace(b",", b" ,"),
        ONLY.replace(b"data: ", b"data:"),
        b": note\nid: 9\n" + ONLY,
        b'data: {"choices":\ndata: [ ],"usage":\ndata: {"prompt_tokens":8,"completion_tokens":2}}\n\n',
    ],
)
def test_the_usage_chunk_is_kept_from_a_client_that_did_not_ask(only: bytes) -> None:
    """The usage chunk is recorded and left out, however it is written and grouped; nothing else is left out."""
    for blocks in ([START, only, DONE], [START + only + DONE], [START + only, DONE], [START, only + DONE]):
        watching = observer(chat_completions)
        assert b"".join([watching.stream(block) for block in blocks]) == START + DONE
        [usage] = watching.facts().token_usages
        assert (usage.input_tokens, usage.output_tokens, usage.partial) == (8, 2, False)


def test_a_client_that_asked_gets_the_usage_chunk() -> None:
    """A stream whose client asked for usage is relayed unchanged."""
    watching = observer(chat_completions, stream_options={"include_usage": True})
    assert watching.stream(START + ONLY + DONE) == START + ONLY + DONE
    assert watching.facts().token_usages


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"id":"x","choices":[],"prompt_filter_results":[]}\n\n',
        b'data: {"id":"x","choices":[],"usage":null}\n\n',
        b'data: {"id":"x","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":1}}\n\n',
        b'data: {"id":"x","usage":{"prompt_tokens":1}}\n\n',
        b": ping\n\n",
        b"data: [DONE]\n\n",
        b"event: x\ndata: no json\n\n",
    ],
)
def test_only_the_usage_chunk_is_left_out(event: bytes) -> None:
    """Chunks without choices or usage, and chunks with both, are relayed."""
    assert observer(chat_completions).stream(event) == event
    watching = observer(chat_completions)
    assert watching.stream(START + event + ONLY + DONE) == START + event + DONE


def test_usage_of_every_kind() -> None:
    """Cached tokens are subtracted from the input; the other kinds are extras under the gateway's own names."""
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "prompt_tokens_details": {"cached_tokens": 30, "cache_write_tokens": 20, "audio_tokens": 4},
        "completion_tokens_details": {
            "reasoning_tokens": 5,
            "audio_tokens": 6,
            "accepted_prediction_tokens": 7,
            "rejected_prediction_tokens": 8,
            "news": 9,
        },
    }
    expected = TokenUsage(
        message_id="chatcmpl-1",
        input_tokens=50,
        output_tokens=50,
        cache_read_tokens=30,
        cache_write_tokens=20,
        extra={
            "reasoning": 5,
            "audio_output": 6,
            "accepted_prediction": 7,
            "rejected_prediction": 8,
            "audio_input": 4,
        },
    )
    ending = {"id": "chatcmpl-1", "choices": [], "usage": usage}
    assert streamed(chat_completions, chunk(finish_reason="stop"), ending).facts().token_usages == [expected]
    answer = {"id": "chatcmpl-1", "choices": [{"index": 0, "message": {}}], "usage": usage}
    assert answered(chat_completions, answer).facts().token_usages == [expected]


def test_more_cached_than_counted_is_no_negative_input() -> None:
    """If more tokens are cached than counted, the cached ones are taken as additional and nothing is subtracted."""
    usage = {"prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": 5}}
    [recorded] = answered(chat_completions, {"choices": [], "usage": usage}).facts().token_usages
    assert (recorded.input_tokens, recorded.cache_read_tokens) == (3, 5)


def test_usage_of_a_broken_stream_is_partial() -> None:
    """Usage in the chunks of a stream that breaks off is recorded as partial."""
    watching = streamed(chat_completions, {**chunk({"content": "Hi"}), "usage": USAGE})
    assert not watching.finished
    assert [usage.partial for usage in watching.facts().token_usages] == [True]
    watching.stream(DONE)
    assert [usage.partial for usage in watching.facts().token_usages] == [False]


def test_without_usage_none_is_recorded() -> None:
    """A response without usage records none, rather than zeros."""
    assert streamed(chat_completions, chunk({"content": "Hi"}), "[DONE]").facts().token_usages == []


def test_the_end_is_the_finish_reason_or_done() -> None:
    """Only a finish reason or `[DONE]` ends a message, not text of the model that looks like either."""
    for text in ("[DONE]", "data: [DONE]", '"finish_reason":"stop"', '{"finish_reason": "stop"}'):
        watching = streamed(chat_completions, chunk({"role": "assistant"}), chunk({"content": text}))
        assert not watching.finished
    assert streamed(chat_completions, chunk(), chunk(finish_reason="length")).finished
    assert streamed(chat_completions, chunk(), "[DONE]").finished
    watching = observer(chat_completions)
    watching.stream(b'data: {"id": "x", "choices" : [{"delta" : {}, "finish_reason" : "stop"}]}\n\n')
    assert watching.finished


def test_parallel_tool_calls() -> None:
    """Interleaved deltas of several calls are put together by index, and the first index need not be 0."""
    watching = streamed(
        chat_completions,
        call(index=1, id="call_a", type="function", function={"name": "read", "arguments": ""}),
        call(index=2, id="call_b", type="function", function={"name": "list", "arguments": '{"di'}),
        call(index=1, function={"arguments": '{"path":'}),
        call(index=2, function={"arguments": 'r":"."}'}),
        call(index=1, function={"arguments": '"a"}'}),
    )
    assert tools(watching) == [("call_a", "read", {"path": "a"}), ("call_b", "list", {"dir": "."})]


@pytest.mark.parametrize("index", [{}, {"index": 0}, {"index": None}])
def test_calls_that_share_an_index_are_told_apart_by_id(index: dict[str, Any]) -> None:
    """Calls without an index, or all with index 0, are told apart by id, as some providers need."""
    watching = streamed(
        chat_completions,
        call(id="call_a", function={"name": "read", "arguments": "{"}, **index),
        call(function={"arguments": "}"}, **index),
        call(id="call_b", function={"name": "list", "arguments": "[1"}, **index),
        call(function={"arguments": ",2]"}, **index),
    )
    assert tools(watching) == [("call_a", "read", {}), ("call_b", "list", [1, 2])]


def test_calls_without_index_may_interleave() -> None:
    """A delta without an index belongs to the call that its id names."""
    watching = streamed(
        chat_completions,
        call(id="call_a", function={"name": "read", "arguments": "[1"}),
        call(id="call_b", function={"name": "list", "arguments": "[2"}),
        call(id="call_a", function={"arguments": ",1]"}),
        call(id="call_b", function={"arguments": ",2]"}),
    )
    assert tools(watching) == [("call_a", "read", [1, 1]), ("call_b", "list", [2, 2])]


def test_choices_have_calls_of_their_own() -> None:
    """Calls with the same index in two choices are two calls."""
    one = {"index": 0, "function": {"name": "read", "arguments": "1"}}
    two = {"index": 0, "function": {"name": "list", "arguments": "2"}}
    watching = streamed(chat_completions, chunk({"tool_calls": [one]}), chunk({"tool_calls": [two]}, choice=1))
    assert tools(watching) == [("", "read", 1), ("", "list", 2)]


def test_custom_tools_keep_their_input_as_text() -> None:
    """The input of a custom tool stays text, even if it looks like JSON."""
    watching = streamed(
        chat_completions,
        call(index=0, id="call_a", type="custom", custom={"name": "shell", "input": "["}),
        call(index=0, custom={"input": "1]"}),
    )
    assert tools(watching) == [("call_a", "shell", "[1]")]
    message = {"tool_calls": [{"id": "call_a", "type": "custom", "custom": {"name": "shell", "input": "[1]"}}]}
    assert tools(answered(chat_completions, {"choices": [{"message": message}]})) == [("call_a", "shell", "[1]")]


def test_the_old_function_call() -> None:
    """A call in the older `function_call` member is recorded with an empty id."""
    watching = streamed(
        chat_completions,
        chunk({"function_call": {"name": "read", "arguments": ""}}),
        chunk({"function_call": {"arguments": "{}"}}),
    )
    assert tools(watching) == [("", "read", {})]
    answer = {"choices": [{"message": {"function_call": {"name": "read", "arguments": "{}"}}}]}
    assert tools(answered(chat_completions, answer)) == [("", "read", {})]


def test_arguments_that_break_off_are_kept_as_text() -> None:
    """Arguments cut by the token limit or a broken connection are recorded as text."""
    watching = streamed(chat_completions, call(index=0, id="call_a", function={"name": "read", "arguments": '{"pa'}))
    assert tools(watching) == [("call_a", "read", '{"pa')]


def test_a_blocking_answer() -> None:
    """The tool calls of all choices are recorded in order."""
    calls = [{"id": f"call_{one}", "type": "function", "function": {"name": one, "arguments": "{}"}} for one in "abc"]
    choices = [{"index": 0, "message": {"tool_calls": calls[:2]}}, {"index": 1, "message": {"tool_calls": calls[2:]}}]
    watching = answered(chat_completions, {"id": "chatcmpl-1", "choices": choices, "usage": USAGE})
    assert tools(watching) == [("call_a", "a", {}), ("call_b", "b", {}), ("call_c", "c", {})]
    assert (watching.message_id, watching.finished, watching.error) == ("chatcmpl-1", True, None)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        ({"message": "No.", "type": "server_error", "code": "x"}, "server_error: No."),
        ({"message": "No.", "type": None, "code": "x"}, "x: No."),
        ({"message": "No."}, "No."),
        ("No.", "No."),
        ({"odd": 1}, "the upstream reported an error without a message"),
        ([1], "the upstream reported an error without a message"),
        (True, "the upstream reported an error without a message"),
    ],
)
def test_an_error_of_the_upstream_is_seen(error: Any, text: str) -> None:
    """The first error is recorded, whatever its shape, both in a stream and in a blocking response."""
    assert streamed(chat_completions, chunk(), {"error": error}, {"error": "more"}).error == text
    watching = answered(chat_completions, {"error": error})
    assert (watching.error, watching.finished) == (text, False)


def test_our_own_error_event() -> None:
    """A broken stream ends with an error event in OpenAI's shape."""
    event = observer(chat_completions).error_event(UpstreamUnreachable("gone"))
    assert event.startswith(b"data: {")
    assert event.endswith(b"}\n\n")
    expected = {"message": "gone", "type": "server_error", "param": None, "code": "upstream_unreachable"}
    assert json.loads(event[6:]) == {"error": expected}
    assert b'"rate_limit_error"' in observer(chat_completions).error_event(GatewayError(429, "c", "m"))


@pytest.mark.parametrize(
    ("details", "output"),
    [({"reasoning_tokens": 0}, 2), ({"reasoning_tokens": 7}, 9), ({"reasoning_tokens": 90}, 2), ({}, 10), (None, 10)],
)
def test_a_total_beyond_its_parts_is_reasoning_unless_that_is_named(details: Any, output: int) -> None:
    """Reasoning beside the output is added to it: the named number if the total allows it, else the unnamed excess."""
    usage = {**USAGE, "total_tokens": 18, "completion_tokens_details": details}
    [seen] = answered(chat_completions, {"id": "x", "choices": [], "usage": usage}).facts().token_usages
    assert seen.output_tokens == output
