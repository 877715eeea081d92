"""Events that are passed over because they resemble the one before: only those that tell nothing when parsed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_aibridge.formats import chat_completions, messages
from fastapi_aibridge.formats.chat_completions.message import ChatMessage
from fastapi_aibridge.formats.chat_completions.streams import tells
from fastapi_aibridge.formats.decoder import Decoder
from fastapi_aibridge.formats.format import Format
from fastapi_aibridge.formats.likeness import Likeness
from fastapi_aibridge.formats.text import Budget
from fastapi_aibridge.recorder.records import Facts

from .observing import lean

WORDS = st.sampled_from(
    [
        "Hi",
        "",
        "\\",
        '"',
        "\n",
        "\r",
        "a\\",
        '\\"',
        "[DONE]",
        "\n\ndata: [DONE]\n\n",
        '"error"',
        "error",
        '","usage":1,"x":"',
    ]
)
ENDS = st.sampled_from(
    [
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}},
        {"error": {"message": "overloaded"}},
        {
            "choices": [
                {"delta": {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}]}}
            ]
        },
        {"choices": [{"delta": {"content": "x"}, "finish_reason": "stop"}]},
    ]
)


def delta(word: str, padding: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}], "obfuscation": padding}


EVENTS = st.lists(st.builds(delta, WORDS, WORDS) | ENDS, max_size=12)


def facts_of(format_: Format, block: bytes, size: int) -> tuple[bytes, Facts, str | None, bool]:
    rounds = format_.single(b"{}", 2**20, usage_asked=True)
    whole = [event + b"\n\n" for event in block.split(b"\n\n")[:-1]]
    passed = b"".join(rounds.stream(b"".join(whole[at : at + size])) for at in range(0, len(whole), size))
    message = rounds.message
    return passed, message.facts(), message.error, message.complete


@lean
@given(events=EVENTS, size=st.integers(1, 13))
def test_the_same_is_read_as_where_each_event_is(events: list[dict[str, Any]], size: int) -> None:
    """Passing over similar events gives the same bytes and facts as parsing every event."""
    begin = {"id": "chatcmpl-1", **delta("", "x")}
    block = b"".join(b"data: " + json.dumps({"id": "chatcmpl-1", **one}).encode() + b"\n\n" for one in [begin, *events])
    every = Decoder(ChatMessage(Budget.of_record(2**20)), tells, every=True)
    for _ in every.feed(block):
        pass
    passed, facts, error, complete = facts_of(chat_completions, block, size)
    assert passed == block
    assert (facts, error, complete) == (every.message.facts(), every.message.error, every.message.complete)


@pytest.mark.parametrize("format_", [chat_completions, messages], ids=lambda one: one.name)
@pytest.mark.parametrize("hidden", [b"data: [DONE]", b'event: error\ndata: {"type":"error","error":{"message":"m"}}'])
def test_what_stands_between_broken_events(format_: Format, hidden: bytes) -> None:
    """An event between two similar ones is read, even if a text seems to continue across it."""
    start = b'data: {"id":"m","type":"message_start","message":{"id":"m"},"choices":[{"delta":{"text":""}}]}\n\n'
    word = b'data: {"choices":[{"delta":{"text":"%s"}}]}\n\n'
    block = start + word % b"a" + word % b"b" + word % (b"c\n\n" + hidden + b"\n\n")
    for size in (1, 9):
        _, _, error, complete = facts_of(format_, block, size)
        assert complete if b"DONE" in hidden and format_ is chat_completions else True
        assert error == ("m" if b"error" in hidden else None)


def test_few_of_many_deltas_are_looked_through() -> None:
    """One delta is searched for markers, and a hundred similar ones pass without a search."""
    seen: list[bytes] = []

    def looked_through(events: bytes) -> bool:
        seen.append(events)
        return tells(events)

    decoder = Decoder(ChatMessage(Budget.of_record(2**20)), looked_through)
    event = b'data: {"id":"c","choices":[{"delta":{"content":"%d"}}]}\n\n'
    for _ in decoder.feed(event % 0):
        pass
    for number in range(100):
        assert decoder.passes(event % number)
    assert len(seen) == 1
    assert len(list(decoder.feed(b"".join(event % number for number in range(100))))) == 1
    assert len(seen) == 1


def test_events_that_are_all_different_are_given_up() -> None:
    likeness = Likeness()
    for number in range(20):
        event = b'data: {"created":%d,"content":"x"}\n\n' % number
        assert likeness.end(event) == 0
        likeness.learn(event)
    assert not likeness.hopes
