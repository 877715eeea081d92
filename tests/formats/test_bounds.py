"""Bounds on what an upstream can cost: time linear in the bytes read, limited memory, and short single steps."""

from __future__ import annotations

import gc
import json
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from fastapi_aibridge.errors import GatewayError
from fastapi_aibridge.formats import chat_completions, messages, responses
from fastapi_aibridge.formats.format import Format
from fastapi_aibridge.formats.lenient import load
from fastapi_aibridge.formats.rounds import Rounds
from fastapi_aibridge.formats.text import Budget, TextBuffer
from fastapi_aibridge.sse import parts
from tests import processor_time
from tests.processor_time import growth, least

from .observing import observer
from .parsing import parse
from .rounds.driving import CHAT, KINDS, remembering, woven

STEP = 16 * 1024
KIND = {kind.format.name: kind for kind in KINDS}


def event(**members: Any) -> bytes:
    return b"data: " + json.dumps(members, separators=(",", ":")).encode() + b"\n\n"


def chunk(delta: dict[str, Any]) -> bytes:
    return event(id="c", choices=[{"index": 0, "delta": delta, "finish_reason": None}])


def call(number: int, name: str = "bmcp_box_echo") -> dict[str, Any]:
    return {"index": number, "id": f"c{number}", "function": {"name": name, "arguments": "ab"}}


def block(**members: Any) -> bytes:
    return event(type="message_start", message={"id": "m"}) + event(
        type="content_block_start", index=0, content_block=members
    )


def delta(**members: Any) -> bytes:
    return event(type="content_block_delta", index=0, delta=members)


def item(number: int) -> bytes:
    members = {"type": "function_call", "call_id": f"c{number}", "name": "bmcp_box_echo", "arguments": "{}"}
    return event(type="response.output_item.done", output_index=number, item=members)


REASONED = {"type": "reasoning.text", "text": "a"}
USE = {"type": "tool_use", "id": "a", "name": "bmcp_box_echo", "input": {}}
SHAPES: dict[str, tuple[Format, Callable[[int], bytes]]] = {
    "text": (chat_completions, lambda n: chunk({"content": "hello "}) * n),
    "one call": (chat_completions, lambda n: chunk({"tool_calls": [call(0)]}) * n),
    "many calls": (chat_completions, lambda n: b"".join(chunk({"tool_calls": [call(one)]}) for one in range(n))),
    "many calls in one event": (
        chat_completions,
        lambda n: chunk({"tool_calls": [call(one, "f") for one in range(n)]}),
    ),
    "a space before null": (
        chat_completions,
        lambda n: chunk({"content": "x"}).replace(b'"finish_reason":null', b'"finish_reason": null') * n,
    ),
    "ends": (chat_completions, lambda n: chunk({}) + b"data: [DONE]\n\n" * min(n, 4000)),
    "no JSON": (chat_completions, lambda n: b'data: {"error"\n\n' * n),
    "carriage returns": (chat_completions, lambda n: chunk({"content": "x"}).replace(b"\n", b"\r\n") * n),
    "one detail": (chat_completions, lambda n: chunk({"reasoning_details": [{**REASONED, "index": 0}]}) * n),
    "details": (
        chat_completions,
        lambda n: b"".join(chunk({"reasoning_details": [{**REASONED, "index": one}]}) for one in range(n)),
    ),
    "parts": (chat_completions, lambda n: chunk({"content": [{"type": "text", "text": "a"}]}) * n),
    "unknown members": (chat_completions, lambda n: b"".join(chunk({f"m{one}": "x"}) for one in range(n))),
    "thinking": (messages, lambda n: block(type="thinking") + delta(type="thinking_delta", thinking="hm") * n),
    "text blocks": (messages, lambda n: block(type="text") + delta(type="text_delta", text="hm") * n),
    "input": (messages, lambda n: block(**USE) + delta(type="input_json_delta", partial_json="ab") * n),
    "citations": (messages, lambda n: block(type="text") + delta(type="citations_delta", citation={"a": 1}) * n),
    "blocks": (messages, lambda n: block(type="text", text="x") * n),
    "text items": (responses, lambda n: event(type="response.output_text.delta", output_index=0, delta="a") * n),
    "items": (responses, lambda n: b"".join(map(item, range(n)))),
    "beginnings": (responses, lambda n: event(type="response.created", response={"id": "r", "tools": []}) * n),
}


def rounds_of(format_: Format, *, whole: bool) -> Rounds:
    request = parse(format_, KIND[format_.name].request(streamed=True))
    if whole:
        return woven(KIND[format_.name], request.body[:], remembering(), usage_asked=False)
    return format_.single(request.body, 2**20, usage_asked=False)


def timed(rounds: Rounds, stream: bytes) -> tuple[float, float]:
    """Return the processor time in seconds: in all, and of the longest step."""
    longest = 0.0
    begun = time.thread_time()
    for part in parts(stream, STEP):
        step = time.thread_time()
        rounds.stream(part)
        longest = max(longest, time.thread_time() - step)
    rounds.message.facts()
    return time.thread_time() - begun, longest


@pytest.mark.parametrize("whole", [False, True], ids=["relayed", "woven"])
@pytest.mark.parametrize("shape", SHAPES)
def test_time_grows_with_what_is_read_and_steps_are_short(shape: str, whole: bool) -> None:
    """Four times as many bytes take less than eight times as long, and no step takes over 20 ms."""
    format_, stream = SHAPES[shape]
    streams = {size: stream(size) for size in (1000, 4000)}

    def measured(size: int) -> tuple[float, float]:
        return timed(rounds_of(format_, whole=whole), streams[size])

    assert growth(lambda size: measured(size)[0], 1000, 4000, 8) < 8
    assert least(lambda: measured(4000)[1], 0.02) < 0.02


@pytest.mark.parametrize(
    "inside",
    [b"[]," * 400_000, b"{}," * 400_000, b'"a",' * 1_000_000, b"0," * 2_000_000, b'"' + b"x, " * 3_000_000 + b'",'],
    ids=["lists", "objects", "strings", "numbers", "text"],
)
def test_a_large_event_is_read_as_far_as_its_small_members(inside: bytes) -> None:
    """Members that are slow to build are left out; the small members beside them are read."""
    _read_quickly(b'"output":[' + inside + b"1]")


def test_an_event_of_many_members_is_read_as_far_as_those_that_matter() -> None:
    """Members that nobody reads are passed over, however many there are."""
    _read_quickly(b",".join(b'"%d":1' % one for one in range(500_000)))


def _read_quickly(members: bytes) -> None:
    data = b'{"response":{' + members + b',"usage":{"input_tokens":7}},"type":"response.completed"}'
    assert least(lambda: processor_time.of(lambda: load(data)), 0.06) < 0.06  # twice the usual time
    value = load(data)
    assert (value["type"], value["response"]["usage"]) == ("response.completed", {"input_tokens": 7})


SUMMARY = {"type": "reasoning", "summary": [{"text": "x" * 1000}]}


def grown(rounds: Rounds, start: bytes, repeated: bytes, megabytes: int) -> int:
    """Return the bytes of memory that are held additionally after so many megabytes of a stream."""
    many = repeated * (STEP // len(repeated))
    rounds.stream(start)
    rounds.stream(many)
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(megabytes * 2**20 // len(many)):
            rounds.stream(many)
        rounds.message.facts()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("format_", "start", "repeated"),
    [
        (messages, block(type="thinking", thinking=""), delta(type="thinking_delta", thinking="x" * 1000)),
        (messages, block(**USE), delta(type="input_json_delta", partial_json="x" * 1000)),
        (messages, b"", block(**{**USE, "input": {"a": "x" * 1000}})),
        (chat_completions, b"", chunk({"tool_calls": [{"index": 0, "function": {"arguments": "x" * 1000}}]})),
        (responses, b"", event(type="response.output_item.done", output_index=0, item=SUMMARY)),
    ],
    ids=["thinking", "input", "blocks", "arguments", "summaries"],
)
def test_memory_of_what_is_recorded_is_bounded(format_: Format, start: bytes, repeated: bytes) -> None:
    """Memory is limited to a few texts of the largest recorded size, however much the provider sends."""
    assert grown(rounds_of(format_, whole=False), start, repeated, 24) < 12 * 2**20


def test_what_is_recorded_is_cut_and_says_so() -> None:
    """Recorded arguments and thoughts are cut and marked as truncated in each format."""
    long = "x" * 300
    watching = observer(messages, max_text=100)
    watching.stream(block(type="thinking") + delta(type="thinking_delta", thinking=long))
    [thought] = watching.facts().thoughts
    assert (thought.text, thought.truncated) == (long[:100], True)
    watching = observer(chat_completions, max_text=100)
    watching.stream(chunk({"tool_calls": [{**call(0), "function": {"name": "f", "arguments": long}}]}))
    [usage] = watching.facts().tool_usages
    assert (usage.arguments, usage.truncated) == (long[:100], True)
    watching = observer(responses, max_text=100)
    reasoning = {"type": "reasoning", "summary": [{"text": long}]}
    given = {"type": "function_call", "call_id": "c", "name": "f", "arguments": {"a": long}}
    for one in (reasoning, given):
        watching.stream(event(type="response.output_item.done", item=one))
    facts = watching.facts()
    assert (facts.thoughts[0].text, facts.thoughts[0].truncated) == (long[:100], True)
    assert (facts.tool_usages[0].arguments, facts.tool_usages[0].truncated) == (f'{{"a":"{long}'[:100], True)


def test_what_is_too_large_to_go_back_ends_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message too large to keep whole is not sent back in part: its tool calls raise an error."""
    monkeypatch.setattr("fastapi_aibridge.formats.text.WHOLE", 1000)
    rounds = rounds_of(chat_completions, whole=True)
    rounds.stream(chunk({"content": "x" * 2000}) + chunk({"tool_calls": [call(0)]}))
    rounds.stream(event(id="c", choices=[{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]))
    with pytest.raises(GatewayError, match="too large"):
        rounds.calls()
    rounds = rounds_of(chat_completions, whole=True)
    whole = chunk({"content": "x" * 2000}) + event(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
    assert rounds.stream(whole) + rounds.end() == whole
    assert rounds.calls() == []


def test_a_stream_that_does_not_end_at_its_end_is_cut() -> None:
    """The part of a stream that is held back until it is known whether a round follows is bounded."""
    rounds = woven(CHAT, CHAT.request(streamed=True), remembering())
    rounds.stream(event(id="c", choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}]))
    late = b": still here" * 1000 + b"\n\n"
    with pytest.raises(GatewayError, match="behind its end"):
        rounds.stream(late * 200)


def test_more_calls_and_items_than_anybody_makes_are_not_kept() -> None:
    """The number of calls and items that are kept is bounded, and so are their names."""
    watching = observer(chat_completions)
    for number in range(5000):
        watching.stream(chunk({"tool_calls": [call(number)]}))
    assert len(watching.facts().tool_usages) == 4096
    rounds = rounds_of(chat_completions, whole=True)
    for number in range(5000):
        assert b"bmcp_" not in rounds.stream(chunk({"tool_calls": [call(number)]}))
    rounds = rounds_of(messages, whole=True)
    with pytest.raises(GatewayError, match="too large"):
        rounds.stream(block(**USE) * 5000)
    rounds = rounds_of(responses, whole=True)
    with pytest.raises(GatewayError, match="too large"):
        rounds.stream(b"".join(map(item, range(5000))))


def test_a_text_is_cut_where_the_budget_ends() -> None:
    """A text is cut at its own budget and at the budget of all texts together."""
    budget = Budget(each=5, total=8, recorded=5)
    first, second = TextBuffer(budget), TextBuffer(budget)
    for piece in ("abc", "def", "g"):
        first.add(piece)
        second.add(piece)
    assert (str(first), first.truncated, str(second), second.truncated) == ("abcde", True, "abc", True)
    assert budget.exceeded
    assert not TextBuffer(budget)
