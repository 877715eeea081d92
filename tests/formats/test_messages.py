"""Anthropic Messages: reading requests and recording responses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fastapi_aibridge.errors import GatewayError, UpstreamTimeout
from fastapi_aibridge.formats import messages
from fastapi_aibridge.formats.request import ModelRequest
from fastapi_aibridge.recorder.records import Thought, TokenUsage

from .observing import answered, observer, streamed, tools
from .parsing import parse

STOP = {"type": "message_stop"}


def parsed(*given: Any, **members: Any) -> ModelRequest:
    return parse(messages, json.dumps({"model": "m", "messages": given, **members}).encode())


def said(request: ModelRequest) -> list[str]:
    return [one.text for one in request.prompts]


def start(**usage: Any) -> dict[str, Any]:
    return {"type": "message_start", "message": {"id": "msg_1", "type": "message", "usage": usage}}


def block(index: int, **content: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": content}


def delta(at: int, **members: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": at, "delta": members}


def usage(**members: Any) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": members}


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ("Hi", ["Hi"]),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], ["a", "b"]),
        ([{"type": "text", "text": "a"}, {"type": "image", "source": {}}], ["a"]),
        ([{"type": "tool_result", "tool_use_id": "toolu_1", "content": "4"}], []),
        ([{"type": "tool_result", "tool_use_id": "toolu_1"}, {"type": "text", "text": "b"}], ["b"]),
        ([], []),
    ],
)
def test_the_prompts_are_all_texts_of_the_last_message(content: Any, texts: list[str]) -> None:
    """The prompts are the content string or all text parts of the last message, without tool results."""
    assert said(parsed({"role": "user", "content": content})) == texts


def test_there_is_no_prompt_unless_the_user_spoke_last() -> None:
    """A prefilled answer at the end leaves no prompt."""
    assert parsed({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "I"}).prompts == []
    assert parsed().prompts == []


def test_instructions_behind_the_users_words_leave_them_the_prompt() -> None:
    """System messages after the user's last message, as coding agents add them, do not hide the prompt."""
    request = parsed({"role": "user", "content": "Hi"}, {"role": "system", "content": "Be brief."})
    assert said(request) == ["Hi"]


def test_a_tool_result_names_its_call() -> None:
    """The last of several tool results names the correlating call."""
    results = [{"type": "tool_result", "tool_use_id": f"toolu_{number}"} for number in (1, 2)]
    assert parsed({"role": "user", "content": results}).correlating_tool_call_id == "toolu_2"
    assert parsed({"role": "user", "content": "Hi"}).correlating_tool_call_id is None


def test_the_user_id_is_read() -> None:
    """`metadata.user_id`, in which Claude Code sends its session, is read if it is text."""
    assert parsed(metadata={"user_id": "u"}).user_id == "u"
    assert parsed(metadata={"user_id": 5}).user_id is None
    assert parsed(metadata=None).user_id is None


def test_a_request_is_never_edited() -> None:
    """The body goes upstream as received, because the format needs no additional option."""
    body = b'{ "model":"m","stream" : true }'
    assert parse(messages, body).body == body


def test_usage_of_a_delta_is_cumulative() -> None:
    """The last count of each kind holds, counts not repeated stay as at the start, and null changes nothing."""
    watching = streamed(
        messages,
        start(input_tokens=10, output_tokens=1, cache_read_input_tokens=5, cache_creation_input_tokens=4),
        usage(output_tokens=7),
        usage(output_tokens=9, input_tokens=None, cache_read_input_tokens=6),
        STOP,
    )
    assert watching.facts().token_usages == [
        TokenUsage(message_id="msg_1", input_tokens=10, output_tokens=9, cache_read_tokens=6, cache_write_tokens=4)
    ]


def test_usage_of_every_kind() -> None:
    """Cache writes by lifetime, server tools and thinking are recorded as extras."""
    given = {
        "input_tokens": 1,
        "output_tokens": 2,
        "cache_creation": {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 4},
        "server_tool_use": {"web_search_requests": 5, "web_fetch_requests": 6},
        "output_tokens_details": {"thinking_tokens": 7},
        "service_tier": "standard",
    }
    [recorded] = answered(messages, {"id": "msg_1", "content": [], "usage": given}).facts().token_usages
    assert recorded.extra == {
        "cache_creation_5m": 3,
        "cache_creation_1h": 4,
        "web_search_requests": 5,
        "web_fetch_requests": 6,
        "reasoning": 7,
    }


def test_usage_of_a_broken_stream_is_partial() -> None:
    """Usage is partial until the message has stopped."""
    going_on = {"type": "message_delta", "delta": {"stop_reason": None}, "usage": {"output_tokens": 7}}
    watching = streamed(messages, start(input_tokens=10, output_tokens=1), going_on)
    [recorded] = watching.facts().token_usages
    assert (recorded.input_tokens, recorded.output_tokens, recorded.partial) == (10, 7, True)
    assert not watching.finished


def test_a_reason_to_stop_completes_a_message() -> None:
    """A stop reason completes a message, because some servers send nothing more; later counts still apply."""
    watching = streamed(messages, start(input_tokens=10, output_tokens=1), usage(output_tokens=7))
    assert watching.finished
    watching.stream(f"data: {json.dumps(usage(output_tokens=9))}\n\n".encode())
    [recorded] = watching.facts().token_usages
    assert (recorded.input_tokens, recorded.output_tokens, recorded.partial) == (10, 9, False)


def test_tool_use() -> None:
    """Tool calls are read in parallel, interleaved, from any start index, and with whole input in the start event."""
    watching = streamed(
        messages,
        start(),
        block(3, type="tool_use", id="toolu_1", name="read", input={}),
        block(5, type="tool_use", id="toolu_2", name="list", input={}),
        delta(3, type="input_json_delta", partial_json='{"path":'),
        delta(5, type="input_json_delta", partial_json=""),
        delta(3, type="input_json_delta", partial_json='"a"}'),
        block(6, type="tool_use", id="toolu_3", name="look", input={"at": 1}),
        STOP,
    )
    assert tools(watching) == [
        ("toolu_1", "read", {"path": "a"}),
        ("toolu_2", "list", {}),
        ("toolu_3", "look", {"at": 1}),
    ]


def test_blocks_that_share_an_index_are_all_seen() -> None:
    """A start event begins a new block even if its index was used before."""
    first, second = block(0, type="tool_use", id="a", name="x"), block(0, type="tool_use", id="b", name="y")
    rest = delta(0, type="input_json_delta", partial_json="{}")
    assert tools(streamed(messages, start(), first, rest, second, rest)) == [("a", "x", {}), ("b", "y", {})]


def test_arguments_that_break_off_are_kept_as_text() -> None:
    """Arguments cut by the token limit or a broken connection are recorded as text."""
    given = (
        block(0, type="tool_use", id="a", name="x", input={}),
        delta(0, type="input_json_delta", partial_json='{"pa'),
    )
    assert tools(streamed(messages, start(), *given)) == [("a", "x", '{"pa')]


def test_tools_that_the_vendor_runs_are_not_the_clients() -> None:
    """Server tools are not recorded as calls to the client."""
    watching = streamed(messages, start(), block(0, type="server_tool_use", id="s", name="web_search"), STOP)
    assert tools(watching) == []


def test_thinking() -> None:
    """Thinking blocks are recorded as thoughts, except for empty and redacted ones."""
    watching = streamed(
        messages,
        start(),
        block(0, type="thinking", thinking="", signature=""),
        delta(0, type="thinking_delta", thinking="Let me "),
        delta(0, type="thinking_delta", thinking="see."),
        delta(0, type="signature_delta", signature="x"),
        block(1, type="redacted_thinking", data="x"),
        block(2, type="thinking", thinking=""),
        block(3, type="text", text=""),
        delta(3, type="text_delta", text="Hi"),
        STOP,
    )
    assert watching.facts().thoughts == [Thought(source="thinking", text="Let me see.")]


def test_a_blocking_answer() -> None:
    """The blocks of a blocking response are recorded in order."""
    watching = answered(
        messages,
        {
            "id": "msg_1",
            "type": "message",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "x"},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "toolu_1", "name": "read", "input": {"path": "a"}},
                {"type": "tool_use", "id": "toolu_2", "name": "list", "input": {}},
            ],
            "usage": {"input_tokens": 1, "output_tokens": 2},
        },
    )
    assert tools(watching) == [("toolu_1", "read", {"path": "a"}), ("toolu_2", "list", {})]
    assert watching.facts().thoughts == [Thought(source="thinking", text="Hm.")]
    assert (watching.message_id, watching.finished, watching.error) == ("msg_1", True, None)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        ({"type": "overloaded_error", "message": "Overloaded"}, "overloaded_error: Overloaded"),
        ("No.", "No."),
        (None, "the upstream reported an error without a message"),
    ],
)
def test_an_error_of_the_upstream_is_seen(error: Any, text: str) -> None:
    """An error is recorded, in a stream and in a blocking response, and the message does not count as finished."""
    watching = streamed(messages, start(input_tokens=3), {"type": "error", "error": error})
    assert (watching.error, watching.finished) == (text, False)
    assert [usage.partial for usage in watching.facts().token_usages] == [True]
    assert answered(messages, {"type": "error", "error": error}).error == text


def test_our_own_error_event() -> None:
    """A broken stream ends with an error event in Anthropic's shape."""
    event = observer(messages).error_event(UpstreamTimeout("silent"))
    assert event == b'event: error\ndata: {"type":"error","error":{"type":"timeout_error","message":"silent"}}\n\n'
    assert b'"api_error"' in observer(messages).error_event(GatewayError(500, "c", "m"))
