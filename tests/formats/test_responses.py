"""OpenAI Responses: reading requests and recording responses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fastapi_aibridge import sse
from fastapi_aibridge.errors import UpstreamUnreachable
from fastapi_aibridge.formats import responses
from fastapi_aibridge.formats.request import ModelRequest
from fastapi_aibridge.recorder.records import Thought, TokenUsage

from .observing import Observer, answered, observer, streamed, tools
from .parsing import parse

GONE = UpstreamUnreachable("gone")
CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "read", "arguments": '{"path":"a"}'}
USAGE = {"input_tokens": 8, "output_tokens": 2, "total_tokens": 10}


def parsed(given: Any) -> ModelRequest:
    return parse(responses, json.dumps({"model": "m", "input": given}).encode())


def whole(kind: str, **members: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}", "response": {"id": "resp_1", "error": None, "usage": None, **members}}


def item(**members: Any) -> dict[str, Any]:
    return {"type": "response.output_item.done", "output_index": 0, "item": members}


@pytest.mark.parametrize(
    ("given", "texts"),
    [
        ("Hi", ["Hi"]),
        ([{"role": "user", "content": "Hi"}], ["Hi"]),
        ([{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}], ["Hi"]),
        (
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "a"},
                        {"type": "input_image", "image_url": "data:"},
                        {"type": "input_text", "text": "b"},
                    ],
                }
            ],
            ["a", "b"],
        ),
        ([{"role": "user", "content": [{"type": "input_image", "image_url": "data:"}]}], []),
        ([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "I"}], []),
        (
            [
                {"role": "user", "content": "Hi"},
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": ""},
            ],
            [],
        ),
        ([], []),
        (None, []),
        (["Hi"], []),
    ],
)
def test_the_prompts_are_all_texts_since_the_last_answer(given: Any, texts: list[str]) -> None:
    """The prompts are the input string or all text parts of user messages since the last response."""
    assert [one.text for one in parsed(given).prompts] == texts


@pytest.mark.parametrize("kind", ["function_call_output", "custom_tool_call_output", "local_shell_call_output"])
def test_a_tool_result_names_its_call(kind: str) -> None:
    """The last item's call id ties a request to the one whose tool call it answers."""
    results = [{"type": kind, "call_id": f"call_{number}", "output": ""} for number in (1, 2)]
    assert parsed(results).correlating_tool_call_id == "call_2"
    assert parsed([*results, {"role": "user", "content": "Hi"}]).correlating_tool_call_id is None


def test_usage_of_every_kind() -> None:
    """Usage is read from the last event or the blocking response; cached tokens are subtracted from the input."""
    usage = {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 30, "cache_write_tokens": 10},
        "output_tokens": 50,
        "output_tokens_details": {"reasoning_tokens": 5},
    }
    expected = TokenUsage(
        message_id="resp_1",
        input_tokens=60,
        output_tokens=50,
        cache_read_tokens=30,
        cache_write_tokens=10,
        extra={"reasoning": 5},
    )
    ended = streamed(responses, whole("created"), whole("completed", usage=usage, output=[]))
    assert ended.facts().token_usages == [expected]
    assert answered(responses, {"id": "resp_1", "usage": usage, "output": []}).facts().token_usages == [expected]


@pytest.mark.parametrize("kind", ["completed", "incomplete", "failed", "cancelled"])
def test_the_end(kind: str) -> None:
    """Each of the four last events finishes the response and makes its usage final."""
    watching = streamed(responses, whole("created"), whole("in_progress"), whole(kind, usage=USAGE, output=[]))
    assert watching.finished
    assert [usage.partial for usage in watching.facts().token_usages] == [False]
    assert not streamed(responses, whole("created"), whole("in_progress")).finished


def test_usage_before_the_end_is_partial() -> None:
    """Usage in an event before the end is recorded as partial."""
    [usage] = streamed(responses, whole("in_progress", usage=USAGE)).facts().token_usages
    assert usage.partial


def test_tool_calls() -> None:
    """Function arguments are parsed, custom input stays text, and local tools of the vendor are named by their type."""
    items: list[dict[str, Any]] = [
        CALL,
        {**CALL, "call_id": "call_2", "arguments": '{"pa'},
        {"type": "custom_tool_call", "call_id": "call_3", "name": "patch", "input": "[1]"},
        {"type": "local_shell_call", "call_id": "call_4", "action": {"command": ["ls"]}},
        {"type": "computer_call", "call_id": "call_5", "action": {"type": "click"}},
        {"type": "web_search_call", "id": "ws_1", "action": {"query": "x"}},
        {"type": "function_call_output", "call_id": "call_6"},
    ]
    expected = [
        ("call_1", "read", {"path": "a"}),
        ("call_2", "read", '{"pa'),
        ("call_3", "patch", "[1]"),
        ("call_4", "local_shell", {"command": ["ls"]}),
        ("call_5", "computer", {"type": "click"}),
    ]
    assert tools(streamed(responses, *[item(**one) for one in items])) == expected
    assert tools(streamed(responses, whole("completed", output=items))) == expected
    assert tools(answered(responses, {"id": "resp_1", "output": items})) == expected


def test_the_end_repeats_the_items() -> None:
    """An item that is repeated in the finished response is recorded once."""
    watching = streamed(responses, whole("created"), item(**CALL), whole("completed", output=[CALL]))
    assert len(tools(watching)) == 1
    assert len(tools(streamed(responses, item(**CALL), whole("completed", output=[])))) == 1


def test_thoughts() -> None:
    """Each part of a reasoning summary is a thought, and so is a message of the phase `commentary`."""
    items = [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "a"}, {"text": "b"}, {"text": ""}]},
        {"type": "message", "phase": "commentary", "content": [{"text": "I "}, {"text": "look."}]},
        {"type": "message", "phase": "commentary", "content": []},
        {"type": "message", "phase": "final_answer", "content": [{"text": "So."}]},
        {"type": "message", "content": [{"text": "So."}]},
        {"type": "reasoning", "summary": []},
    ]
    thoughts = answered(responses, {"output": items}).facts().thoughts
    assert thoughts == [
        Thought(source="reasoning_summary", text="a"),
        Thought(source="reasoning_summary", text="b"),
        Thought(source="commentary", text="I look."),
    ]


@pytest.mark.parametrize(
    ("watching", "text"),
    [
        (streamed(responses, {"type": "error", "code": "c", "message": "No."}), "c: No."),
        (streamed(responses, {"type": "error", "error": {"type": "t", "message": "No."}}), "t: No."),
        (streamed(responses, whole("failed", status="failed", error={"code": "c", "message": "No."})), "c: No."),
        (streamed(responses, whole("failed", status="failed")), "the response failed"),
        (answered(responses, {"output": [], "status": "failed", "error": {"code": "c", "message": "No."}}), "c: No."),
        (answered(responses, {"output": [], "status": "failed", "error": None}), "the response failed"),
        (answered(responses, {"error": {"type": "t", "message": "No."}}), "t: No."),
    ],
)
def test_an_error_of_the_upstream_is_seen(watching: Observer, text: str) -> None:
    """An error is recorded from an error event, a failed response and a blocking response."""
    assert watching.error == text


def test_an_incomplete_response_is_no_error() -> None:
    """A response that ends at the token limit is finished without an error."""
    watching = streamed(responses, whole("incomplete", status="incomplete", output=[]))
    assert (watching.finished, watching.error) == (True, None)


def test_our_own_error_event_goes_on_counting() -> None:
    """The sequence number of the error event continues that of the last relayed event."""
    watching = observer(responses)
    error = GONE
    assert numbered(watching.error_event(error)) == [("error", 0)]
    watching.stream(b'data: {"type":"response.output_text.delta","delta":"a","sequence_number":6}\n\n')
    watching.stream(b'data: {"type":"x","sequence_number":7}\n\nevent: y\ndata: {"type":"y","sequence_number" : 8}\n\n')
    watching.stream(b": ping\n\n")
    end = watching.error_event(error)
    assert end.startswith(b"event: error\ndata: ")
    assert numbered(end) == [("error", 9)]
    assert numbered(watching.error_event(error, failed=True)) == [("error", 9), ("response.failed", 10)]


def numbered(events: bytes) -> list[tuple[str, int]]:
    datas = [json.loads(sse.data_of(event)) for event in sse.events(events)]
    return [(data["type"], data["sequence_number"]) for data in datas]


def test_a_broken_stream_ends_with_an_error_for_each_client() -> None:
    """A broken stream ends with two error events: Codex reads only `response.failed`, OpenAI's SDKs only `error`."""
    watching = streamed(responses, whole("created", created_at=1, model="m", status="in_progress", tools=[{}] * 9))
    error, failed = [json.loads(sse.data_of(event)) for event in sse.events(watching.error_event(GONE, failed=True))]
    said = {"code": "upstream_unreachable", "message": "gone"}
    assert {key: error[key] for key in ("type", "code", "message", "param")} == {"type": "error", **said, "param": None}
    assert error["error"]["message"] == "gone"
    response = failed["response"]
    assert (response["id"], response["model"], response["created_at"]) == ("resp_1", "m", 1)
    assert (response["status"], response["error"]) == ("failed", said)
