"""Streams of Responses whose events do not say which item they are about, as llama.cpp's, or say the same for all."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest

from fastapi_aibridge import sse
from fastapi_aibridge.formats.lenient import load
from fastapi_aibridge.formats.responses.places import ADDED, Places

from .driving import RESPONSES, events_of, play
from .test_responses import MESSAGE, USE, answered, stream_of

OWN = {**USE, "id": "fc_3", "call_id": "own", "name": "read"}
SECOND = {**USE, "id": "fc_2", "call_id": "c2", "arguments": '{"text":"2"}'}


def with_indexes(stream: bytes, index: int | None) -> bytes:
    """Return a stream whose events all have this index, or none."""
    events: list[dict[str, Any]] = [{k: v for k, v in one.items() if k != "output_index"} for one in events_of(stream)]
    for event in events:
        if index is not None and ("item" in event or "item_id" in event):
            event["output_index"] = index
    return b"".join(sse.event(json.dumps(event).encode(), event["type"]) for event in events)


@pytest.mark.parametrize("index", [None, 0, 3])
@pytest.mark.parametrize("empty_end", [False, True])
def test_injected_calls_are_found_and_hidden(index: int | None, empty_end: bool) -> None:
    """Injected calls are run and hidden, and the client sees the other items numbered from 0 or as they came."""
    first = with_indexes(stream_of([USE, MESSAGE, SECOND], empty_end=empty_end), index)
    second = with_indexes(stream_of([{**MESSAGE, "id": "msg_2"}], empty_end=empty_end), index)
    played = play(RESPONSES, [first, second], streamed=True)
    assert [(one.id, one.arguments) for one in played.calls] == [("c1", "{}"), ("c2", '{"text":"2"}')]
    assert b"bmcp_" not in played.body
    assert [item["id"] for item in played.events[-1]["response"]["output"]] == ["msg_1", "msg_2"]
    sent = [item["type"] for item in played.bodies[1]["input"]]
    assert sent[1:] == ["function_call", "message", "function_call", *["function_call_output"] * 2]


@pytest.mark.parametrize("index", [None, 0])
def test_a_mixed_turn(index: int | None) -> None:
    """A call of the client's own arrives with all its events, an injected one with none of them."""
    played = play(RESPONSES, [with_indexes(stream_of([USE, OWN]), index)], streamed=True)
    kinds = [event["type"] for event in played.events if event.get("item_id") == "fc_3" or "item" in event]
    assert kinds == ["response.output_item.added", "response.function_call.novelty", "response.output_item.done"]
    assert [item["id"] for item in played.events[-1]["response"]["output"]] == ["fc_3"]


@pytest.mark.parametrize("index", [None, 0])
def test_a_round_without_injected_calls_passes_as_it_came(index: int | None) -> None:
    stream = with_indexes(answered([MESSAGE, OWN], streamed=True), index)
    assert play(RESPONSES, [stream], streamed=True).body == stream


def test_items_whose_ids_change_on_the_way() -> None:
    """Where events have an index, that counts: some servers encrypt an item's id anew in each event."""
    events = events_of(stream_of([USE, MESSAGE]))
    for number, event in enumerate(events):
        if "item" in event:
            event["item"] = {**event["item"], "id": f"id_{number}"}
        elif "item_id" in event:
            event["item_id"] = f"id_{number}"
    first = b"".join(sse.event(json.dumps(event).encode(), event["type"]) for event in events)
    played = play(RESPONSES, [first, stream_of([{**MESSAGE, "id": "msg_2"}])], streamed=True)
    assert [one.id for one in played.calls] == ["c1"]
    assert b"bmcp_" not in played.body


def test_very_many_items_and_long_ids_are_not_remembered() -> None:
    """An upstream that goes on to begin items, or gives them long ids, fills no memory."""
    places = Places()
    tracemalloc.start()
    try:
        for number in range(100_000):
            event = {"type": ADDED, "output_index": number, "item": {"id": f"msg_{number}"}}
            assert places.of(event) == number
        for number in range(1000):
            places.of({"type": ADDED, "item": {"id": "x" * 10_000 + str(number)}})
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 2 * 2**20


def test_a_large_event_names_its_item() -> None:
    """The item's id is read of events that are too large to build."""
    assert load(b'{"item_id":"fc_1","delta":"' + b"x" * 12_000_000 + b'"}') == {"item_id": "fc_1"}
