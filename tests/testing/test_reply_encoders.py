"""The bytes of scripted replies, checked against the models of the vendors' SDKs."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from fastapi_aibridge.testing import Reply, ToolCall, Usage, messages
from fastapi_aibridge.testing.wire_formats import CHAT_COMPLETIONS, MESSAGES, RESPONSES, WireFormat

REQUEST: dict[str, Any] = {"model": "gpt-5", "messages": [], "max_tokens": 100}
FULL = Reply(
    text="Two words,\n and more.  ",
    thinking="Let me think.",
    tool_calls=[
        ToolCall("read_file", {"path": "README.md", "lines": [1, 20]}, "call_1"),
        ToolCall("list", {}, "call_2"),
    ],
    usage=Usage(input_tokens=10, output_tokens=20, cache_read_tokens=3, cache_write_tokens=2, reasoning_tokens=7),
)
FORMATS = pytest.mark.parametrize(
    "wire_format",
    [
        pytest.param(CHAT_COMPLETIONS, id="chat"),
        pytest.param(RESPONSES, id="responses"),
        pytest.param(MESSAGES, id="messages"),
    ],
)


def events(wire_format: WireFormat, reply: Reply, **request: Any) -> list[dict[str, Any]]:
    """The data of each event; the event's name must be its type."""
    parsed = []
    for event in wire_format.stream(reply, REQUEST | request):
        *name, data = event.decode().removesuffix("\n\n").split("\n")
        if data == "data: [DONE]":
            continue
        parsed.append(orjson.loads(data.removeprefix("data: ")))
        if name:
            assert name == [f"event: {parsed[-1]['type']}"]
    return parsed


def blocking(wire_format: WireFormat, reply: Reply) -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads(wire_format.blocking(reply, REQUEST))
    return body


def of_type(kind: str, parsed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in parsed if event["type"] == kind]


@pytest.mark.parametrize(
    "reply",
    [FULL, Reply("Hi"), Reply(), Reply("x", stop_reason="max_tokens")],
    ids=["full", "text", "empty", "cut short"],
)
def test_every_object_and_event_is_one_that_the_sdk_knows(reply: Reply) -> None:
    """Every body and event is valid for the SDKs' models, with all required members and known types."""
    ChatCompletion.model_validate(blocking(CHAT_COMPLETIONS, reply), strict=True)
    Response.model_validate(blocking(RESPONSES, reply))
    Message.model_validate(blocking(MESSAGES, reply), strict=True)
    for event in events(CHAT_COMPLETIONS, reply, stream_options={"include_usage": True}):
        ChatCompletionChunk.model_validate(event, strict=True)
    for event in events(RESPONSES, reply):
        TypeAdapter(ResponseStreamEvent).validate_python(event)
    for event in events(MESSAGES, reply):
        if event != {"type": "ping"}:
            TypeAdapter(RawMessageStreamEvent).validate_python(event)


@FORMATS
def test_one_item_is_one_event(wire_format: WireFormat) -> None:
    """Each item of a stream is exactly one server-sent event."""
    for event in wire_format.stream(FULL, REQUEST):
        assert event.endswith(b"\n\n")
        assert event.count(b"\n\n") == 1


def test_text_is_streamed_word_by_word() -> None:
    """Each word has its own event, and together they are the text including its last space."""
    wanted = ["Two", " words,", "\n and", " more.", "  "]
    chat = [chunk["choices"][0]["delta"].get("content") for chunk in events(CHAT_COMPLETIONS, Reply(FULL.text))]
    assert [word for word in chat if word] == wanted
    deltas = of_type("response.output_text.delta", events(RESPONSES, FULL))
    assert [event["delta"] for event in deltas] == wanted
    blocks = [event["delta"].get("text") for event in of_type("content_block_delta", events(MESSAGES, FULL))]
    assert [word for word in blocks if word] == wanted


def test_chat_sends_usage_only_where_it_was_asked_for() -> None:
    """With `include_usage` every chunk has a null usage and a last one the figures; otherwise there is no usage."""
    asked = events(CHAT_COMPLETIONS, FULL, stream_options={"include_usage": True})
    assert [chunk["usage"] for chunk in asked[:-1]] == [None] * (len(asked) - 1)
    assert asked[-1]["choices"] == []
    assert asked[-1]["usage"]["total_tokens"] == 35
    assert all("usage" not in chunk for chunk in events(CHAT_COMPLETIONS, FULL))


def test_chat_ends_with_the_done_marker() -> None:
    """The last event of a complete chat stream is [DONE]."""
    assert list(CHAT_COMPLETIONS.stream(FULL, REQUEST))[-1] == b"data: [DONE]\n\n"


def test_chat_chunks_share_their_id() -> None:
    """All chunks of a chat have the same id and time, and another chat has another id."""
    first = {(chunk["id"], chunk["created"]) for chunk in events(CHAT_COMPLETIONS, FULL)}
    assert len(first) == 1
    assert first.isdisjoint((chunk["id"], chunk["created"]) for chunk in events(CHAT_COMPLETIONS, FULL))


def test_openai_counts_cached_tokens_in() -> None:
    """OpenAI's input tokens include cached ones, with the details beside them."""
    chat = blocking(CHAT_COMPLETIONS, FULL)["usage"]
    assert (chat["prompt_tokens"], chat["completion_tokens"], chat["total_tokens"]) == (15, 20, 35)
    assert chat["prompt_tokens_details"]["cached_tokens"] == 3
    assert chat["completion_tokens_details"]["reasoning_tokens"] == 7
    usage = blocking(RESPONSES, FULL)["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (15, 20, 35)
    assert usage["input_tokens_details"] == {"cached_tokens": 3, "cache_write_tokens": 2}
    assert usage["output_tokens_details"] == {"reasoning_tokens": 7}


def test_anthropic_counts_cached_tokens_apart() -> None:
    """Anthropic's input tokens exclude cached ones; the last event has the final, cumulative figures."""
    wanted = {"input_tokens": 10, "cache_read_input_tokens": 3, "cache_creation_input_tokens": 2, "output_tokens": 20}
    assert blocking(MESSAGES, FULL)["usage"].items() >= wanted.items()
    streamed = events(MESSAGES, FULL)
    assert streamed[0]["message"]["usage"].items() >= {**wanted, "output_tokens": 1}.items()
    assert of_type("message_delta", streamed)[0]["usage"].items() >= wanted.items()


def test_responses_number_their_events_and_items() -> None:
    """Sequence numbers are consecutive from 0, and output indexes follow the items."""
    streamed = events(RESPONSES, FULL)
    assert [event["sequence_number"] for event in streamed] == list(range(len(streamed)))
    added = of_type("response.output_item.added", streamed)
    assert [(event["output_index"], event["item"]["type"]) for event in added] == [
        (0, "reasoning"),
        (1, "message"),
        (2, "function_call"),
        (3, "function_call"),
    ]


def test_a_responses_stream_ends_with_the_items_that_it_showed() -> None:
    """The final response repeats the items of the `output_item.done` events in order."""
    streamed = events(RESPONSES, FULL)
    done = [event["item"] for event in of_type("response.output_item.done", streamed)]
    assert streamed[-1]["type"] == "response.completed"
    assert streamed[-1]["response"]["output"] == done
    assert streamed[-1]["response"]["id"] == streamed[0]["response"]["id"]


def test_a_response_repeats_how_it_was_asked_for() -> None:
    """The response repeats tools, instructions and other parameters of the request, as the vendor's does."""
    tools = [{"type": "function", "name": "read_file", "parameters": {}, "strict": False}]
    final = events(RESPONSES, FULL, tools=tools, instructions="Be brief.", tool_choice=None)[-1]["response"]
    assert (final["tools"], final["instructions"], final["tool_choice"]) == (tools, "Be brief.", "auto")


def test_messages_number_their_blocks() -> None:
    """Content blocks are numbered from 0 and started and stopped once; thinking is signed before it stops."""
    streamed = events(MESSAGES, FULL)
    starts = of_type("content_block_start", streamed)
    assert [(event["index"], event["content_block"]["type"]) for event in starts] == [
        (0, "thinking"),
        (1, "text"),
        (2, "tool_use"),
        (3, "tool_use"),
    ]
    assert [event["index"] for event in of_type("content_block_stop", streamed)] == [0, 1, 2, 3]
    thinking = [event["delta"]["type"] for event in streamed if event.get("index") == 0 and "delta" in event]
    assert thinking == ["thinking_delta"] * 3 + ["signature_delta"]


def test_tool_arguments_arrive_in_pieces() -> None:
    """The pieces of a tool call's arguments join to the arguments."""
    wanted = FULL.tool_calls[0].arguments
    deltas = [chunk["choices"][0]["delta"].get("tool_calls", [{}])[0] for chunk in events(CHAT_COMPLETIONS, FULL)]
    chat = "".join(call["function"]["arguments"] for call in deltas if call.get("index") == 0)
    responses = of_type("response.function_call_arguments.delta", events(RESPONSES, FULL))
    blocks = [event["delta"] for event in of_type("content_block_delta", events(MESSAGES, FULL)) if event["index"] == 2]
    assert orjson.loads(chat) == wanted
    assert orjson.loads("".join(event["delta"] for event in responses if event["output_index"] == 2)) == wanted
    assert orjson.loads("".join(delta["partial_json"] for delta in blocks)) == wanted


def test_broken_arguments_are_sent_as_they_are() -> None:
    """Arguments given as text need not be JSON; Messages, which needs an object, sends an empty one."""
    reply = Reply(tool_calls=[ToolCall("read_file", '{"path": "REA')])
    message = blocking(CHAT_COMPLETIONS, reply)["choices"][0]["message"]
    assert message["tool_calls"][0]["function"]["arguments"] == '{"path": "REA'
    assert blocking(RESPONSES, reply)["output"][0]["arguments"] == '{"path": "REA'
    assert blocking(MESSAGES, reply)["content"][0]["input"] == {}


@pytest.mark.parametrize(
    ("reply", "chat", "response", "message"),
    [
        (Reply("x"), "stop", ("completed", None), "end_turn"),
        (Reply(tool_calls=[ToolCall("x")]), "tool_calls", ("completed", None), "tool_use"),
        (Reply("x", stop_reason="max_tokens"), "length", ("incomplete", "max_output_tokens"), "max_tokens"),
        (Reply("x", stop_reason="refusal"), "content_filter", ("incomplete", "content_filter"), "refusal"),
    ],
    ids=["end", "tool call", "max tokens", "refusal"],
)
def test_each_vendor_has_its_word_for_why_the_model_stopped(
    reply: Reply, chat: str, response: tuple[str, str | None], message: str
) -> None:
    """A stop reason has the format's own value, streamed or not."""
    assert blocking(CHAT_COMPLETIONS, reply)["choices"][0]["finish_reason"] == chat
    assert events(CHAT_COMPLETIONS, reply)[-1]["choices"][0]["finish_reason"] == chat
    for final in (blocking(RESPONSES, reply), events(RESPONSES, reply)[-1]["response"]):
        assert (final["status"], (final["incomplete_details"] or {}).get("reason")) == response
    assert events(RESPONSES, reply)[-1]["type"] == f"response.{response[0]}"
    assert blocking(MESSAGES, reply)["stop_reason"] == message
    assert of_type("message_delta", events(MESSAGES, reply))[0]["delta"]["stop_reason"] == message


def test_a_stream_that_fails_ends_in_an_error_event() -> None:
    """After the text there is one error event in the provider's shape, and nothing else."""
    reply = Reply("The start", tool_calls=[ToolCall("never")], error="gone")
    assert events(CHAT_COMPLETIONS, reply)[-1]["error"].items() >= {"message": "gone", "type": "server_error"}.items()
    streamed = events(RESPONSES, reply)
    assert streamed[-1].items() >= {"type": "error", "message": "gone", "sequence_number": len(streamed) - 1}.items()
    assert events(MESSAGES, reply)[-1] == {"type": "error", "error": {"type": "api_error", "message": "gone"}}


@FORMATS
def test_a_stream_that_hangs_up_stops_after_its_text(wire_format: WireFormat) -> None:
    """The events end with the text's last word, without an error or an end event."""
    last = list(wire_format.stream(Reply("The start", hang_up=True), REQUEST))[-1]
    assert b" start" in last


@pytest.mark.parametrize(
    ("status", "openai", "anthropic"),
    [
        (400, "invalid_request_error", "invalid_request_error"),
        (401, "invalid_request_error", "authentication_error"),
        (403, "invalid_request_error", "permission_error"),
        (404, "invalid_request_error", "not_found_error"),
        (429, "requests", "rate_limit_error"),
        (500, "server_error", "api_error"),
        (529, "server_error", "overloaded_error"),
    ],
)
def test_refusals_have_the_vendors_shape(status: int, openai: str, anthropic: str) -> None:
    """An error body has the vendor's type for its status, and the message."""
    body = orjson.loads(CHAT_COMPLETIONS.error(status, "no"))["error"]
    assert (body["type"], body["message"], set(body)) == (openai, "no", {"message", "type", "param", "code"})
    body = orjson.loads(MESSAGES.error(status, "no"))
    assert (body["type"], body["error"]) == ("error", {"type": anthropic, "message": "no"})


def test_tokens_are_counted_in_words() -> None:
    """The counting route counts the words that the model would read, but not names of members or roles."""
    content = [
        {"type": "text", "text": "three more words"},
        {"type": "tool_result", "tool_use_id": "x", "content": "yes"},
    ]
    request = {"system": "one", "messages": [{"role": "user", "content": content}]}
    assert orjson.loads(messages.token_count(request)) == {"input_tokens": 5}
