"""Estimates of the number of tokens, made from the relayed text."""

from __future__ import annotations

import json

import pytest

from fastapi_aibridge.formats.relayed_text import RelayedText, tokens_of_answer, tokens_of_request
from tests import processor_time


def events(*deltas: object) -> bytes:
    return b"".join(b"data: %s\n\n" % json.dumps(delta).encode() for delta in deltas)


def said(format_name: str, *blocks: bytes) -> int:
    text = RelayedText(format_name)
    for block in blocks:
        text.add(block)
    return text.tokens()


def chat(**delta: object) -> object:
    return {"id": "c", "choices": [{"index": 0, "delta": delta}]}


def test_text_of_all_kinds_is_counted() -> None:
    call = {"index": 0, "id": "call_1", "function": {"name": "read", "arguments": '{"path": "a"}'}}
    deltas = (chat(content="abcd"), chat(reasoning_content="efgh"), chat(refusal="ijkl"), chat(tool_calls=[call]))
    assert said("chat_completions", events(*deltas)) == -(-(12 + len('{"path": "a"}')) // 4)
    blocks = (
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "abcd"}},
        {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "efgh"}},
        {"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": "ijkl"}},
        {"type": "content_block_delta", "delta": {"type": "signature_delta", "signature": "x" * 400}},
    )
    assert said("messages", events(*blocks)) == 3


def test_what_responses_say_again_counts_once() -> None:
    again = {"type": "response.output_text.done", "text": "abcdefgh"}
    deltas = [{"type": "response.output_text.delta", "delta": "abcd"}] * 2
    assert said("responses", events(*deltas, again)) == 2


@pytest.mark.parametrize("text", ["a" * 40, "\n" * 40, "é" * 40, "\N{GRINNING FACE}" * 40, '"\\' * 20])
def test_characters_are_counted_however_they_are_written(text: str) -> None:
    for ascii_only in (True, False):
        event = b"data: %s\n\n" % json.dumps(chat(content=text), ensure_ascii=ascii_only).encode()
        assert said("chat_completions", event) == 10


def test_many_events_count_like_few_and_are_not_kept() -> None:
    text = RelayedText("chat_completions")
    for _ in range(10_000):
        text.add(events(chat(content="abcd")))
        assert text._size <= 16 * 1024
    assert text.tokens() == 10_000
    assert text.tokens() == 10_000


def test_a_huge_event_is_taken_to_be_like_its_beginning() -> None:
    assert said("chat_completions", events(*[{"choices": [{"delta": {"content": "a" * 96}}] * 50_000}])) == (
        pytest.approx(1_200_000, rel=0.01)
    )


def test_an_answer_that_is_no_stream() -> None:
    answer = {"choices": [{"message": {"role": "assistant", "content": "a" * 400}}]}
    assert tokens_of_answer(json.dumps(answer).encode()) == 100
    long = {"choices": [{"message": {"content": "a" * 90}}] * 20_000}
    assert tokens_of_answer(json.dumps(long).encode()) == pytest.approx(450_000, rel=0.02)


def test_files_in_a_request_are_no_text() -> None:
    asked = {"messages": [{"content": [{"text": "a " * 2000}, {"image_url": "data:image/png;base64," + "A" * 60_000}]}]}
    assert tokens_of_request(json.dumps(asked).encode()) == pytest.approx(1000, rel=0.05)
    assert tokens_of_request(b"ab " * 1_000_000) == pytest.approx(750_000, rel=0.01)


@pytest.mark.parametrize(
    "evil",
    [
        b'"content":"' * 100_000,
        b'"content":"\\' * 100_000,
        b'"content"' + b" " * 1_000_000 + b":",
        b'"content" ' * 100_000,
        b'"' * 1_000_000,
        (b"A" * 255 + b" ") * 4000,
        b"A" * 1_000_000,
    ],
    ids=range(7),
)
def test_nothing_is_slow_to_count(evil: bytes) -> None:
    """A hostile megabyte is counted within a second of processor time; a quadratic search would take minutes."""

    def count() -> None:
        said("chat_completions", *(evil[at : at + 8192] for at in range(0, len(evil), 8192)))
        tokens_of_answer(evil)
        tokens_of_request(evil)

    assert processor_time.least(lambda: processor_time.of(count), 1) < 1
