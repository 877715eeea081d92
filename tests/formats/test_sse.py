"""The framing of server-sent events: blocks of whole events with unchanged bytes."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_aibridge import sse

from .observing import lean

BREAKS = st.sampled_from([b"\n", b"\r", b"\r\n"])
LINES = st.sampled_from(
    [b"data: x", b"data:{}", b"data", b"event: ping", b": comment", b"id: 7", b"", b"", b"data: \xff"]
)
STREAMS = st.lists(st.tuples(LINES, BREAKS).map(b"".join)).map(b"".join) | st.text("ad: \r\n").map(str.encode)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def feed(framer: sse.Framer, chunks: list[bytes]) -> list[bytes]:
    return [block for chunk in chunks if (block := framer.feed(chunk))]


def data_by_specification(stream: bytes) -> list[bytes]:
    """Return the data of all whole events with data, read line by line as WHATWG HTML 9.2.6 specifies."""
    lines = re.split(rb"\r\n|\n|\r", stream)[:-1]
    found: list[bytes] = []
    data: list[bytes] = []
    for line in lines:
        if not line:
            if data:
                found.append(b"\n".join(data))
            data = []
        elif line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
    return found


@lean
@given(STREAMS, st.lists(st.integers(min_value=0, max_value=10_000)))
def test_no_byte_is_lost_or_added(stream: bytes, places: list[int]) -> None:
    """The blocks and the rest together are the stream, however it is cut."""
    framer = sse.Framer()
    blocks = feed(framer, cut(stream, places))
    assert b"".join(blocks) + framer.rest == stream


@lean
@given(STREAMS, st.lists(st.integers(min_value=0, max_value=10_000)))
def test_blocks_are_whole_events(stream: bytes, places: list[int]) -> None:
    """Each block consists of whole events, and their data is what a parser of the whole stream finds."""
    framer = sse.Framer()
    found = []
    for block in feed(framer, cut(stream, places)):
        events = list(sse.events(block))
        assert b"".join(events) == block
        found += [data for event in events if (data := sse.data_of(event))]
    found += [data for event in sse.events(framer.rest) if (data := sse.data_of(event))]
    assert found == [data for data in data_by_specification(stream) if data]


def test_a_line_break_too_many_stays() -> None:
    """An additional line break after an event is part of the block."""
    block = sse.Framer().feed(b"data: x\n\n\n")
    assert list(sse.events(block)) == [b"data: x\n\n", b"\n"]


@lean
@given(STREAMS, st.lists(st.integers(min_value=0, max_value=10_000)))
def test_cuts_do_not_hold_events_back(stream: bytes, places: list[int]) -> None:
    """The events handed out in the end do not depend on where the stream was cut."""
    whole, pieces = sse.Framer(), sse.Framer()
    whole.feed(stream)
    feed(pieces, cut(stream, places))
    # A surplus empty line may go with the event before it or with the next one.
    assert whole.rest.lstrip(b"\r\n") == pieces.rest.lstrip(b"\r\n")


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\n\r\n", b"\r\n\n"])
def test_an_event_is_handed_out_with_its_last_byte(end: bytes) -> None:
    """An event is handed out as soon as its empty line is complete."""
    framer = sse.Framer()
    event = b"data: x" + end
    assert [framer.feed(event[at : at + 1]) for at in range(len(event))] == [b""] * (len(event) - 1) + [event]


def test_a_carriage_return_at_the_end_of_a_chunk_waits() -> None:
    """A CR at the end of a chunk waits for the next byte, because it may be half of a CRLF."""
    framer = sse.Framer()
    assert framer.feed(b"data: x\r\n\r") == b""
    assert framer.feed(b"\ndata: y") == b"data: x\r\n\r\n"
    assert framer.rest == b"data: y"


def test_lines_may_end_with_carriage_returns_alone() -> None:
    """A CR alone ends a line."""
    framer = sse.Framer()
    assert framer.feed(b"data: x\r\rdata: y\r\r") == b"data: x\r\r"
    assert framer.rest == b"data: y\r\r"


def test_comments_pass() -> None:
    """A comment is an event without data, and is handed out like any other."""
    framer = sse.Framer()
    assert framer.feed(b": ping\n\ndata: x\n\n") == b": ping\n\ndata: x\n\n"
    assert [sse.data_of(event) for event in sse.events(b": ping\n\ndata: x\n\n")] == [b"", b"x"]


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: x\n\n", b"x"),
        (b"data:x\n\n", b"x"),
        (b"data:  x \n\n", b" x "),
        (b"data: a\ndata: b\ndata:\ndata:c\n\n", b"a\nb\n\nc"),
        (b"event: e\ndata: x\n\n", b"x"),
        (b"data: x\nid: 7\n\n", b"x"),
        (b"data: x\r\n\r\n", b"x"),
        (b"data: x\r\r", b"x"),
        (b"\ndata: x\n\n", b"x"),
        (b"data: a\x0bb\x0cc\x1cd\xc2\x85e\n\n", b"a\x0bb\x0cc\x1cd\xc2\x85e"),
        (b"database: x\n\n", b""),
        (b"id: 1\n\n", b""),
        (b"\n\n", b""),
    ],
)
def test_data_of_an_event(event: bytes, data: bytes) -> None:
    """Data lines are joined with LF, without the one space after the colon; other fields are no data."""
    assert sse.data_of(event) == data


def test_an_event_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event over the size limit raises, so that the memory of a stream is bounded."""
    monkeypatch.setattr(sse, "MAX_EVENT_SIZE", 1000)
    framer = sse.Framer()
    for _ in range(10):
        framer.feed(b"x" * 100)
    with pytest.raises(sse.EventTooLarge, match="1000 bytes"):
        framer.feed(b"x")


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_long_event_in_many_chunks_costs_its_length(end: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte is searched less than twice, however small the chunks are."""
    looked_at = 0
    search = sse._end_of_events

    def counting(buffer: bytes | bytearray, start: int) -> int:
        nonlocal looked_at
        looked_at += len(buffer) - start
        return search(buffer, start)

    monkeypatch.setattr(sse, "_end_of_events", counting)
    event = b"data: " + (b"x" * 90 + end + b"data: ") * 2000 + end + end
    framer = sse.Framer()
    feed(framer, [event[at : at + 7] for at in range(0, len(event), 7)])
    assert len(event) <= looked_at < 2 * len(event)


def test_events_written_are_read_again() -> None:
    """Events that the gateway writes have the framing that it reads."""
    assert sse.event(b'{"a":1}', "error") == b'event: error\ndata: {"a":1}\n\n'
    assert sse.event(b"x") == b"data: x\n\n"


@lean
@given(st.lists(st.integers(min_value=1, max_value=40), min_size=1), st.integers(min_value=1, max_value=60), BREAKS)
def test_parts_are_no_larger_than_asked(lengths: list[int], size: int, line_break: bytes) -> None:
    """Whatever ends the lines, a part has at most this size, or is one larger event; no part could hold one more."""
    events = [b"data:" + b"x" * length + 2 * line_break for length in lengths]
    parts = list(sse.parts(b"".join(events), size))
    assert b"".join(parts) == b"".join(events)
    left = list(events)
    for part in parts:
        held = [left.pop(0)]
        while len(b"".join(held)) < len(part):
            held.append(left.pop(0))
        assert b"".join(held) == part
        assert len(part) <= size or len(held) == 1
        assert not left or len(part) + len(left[0]) > size
