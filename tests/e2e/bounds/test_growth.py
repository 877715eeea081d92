"""Reading takes time in proportion to the size of the text, and no single step of it keeps other requests waiting."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import cache

import pytest

from fastapi_aibridge.exchange.relay import STEP
from fastapi_aibridge.formats import chat_completions, responses
from fastapi_aibridge.formats.format import Format
from tests.processor_time import growth, least, of

from .works import ENCODERS, FORMATS, Work, bodies, editing, relay, steps_of, streams, unpacking, weave, works

MANY_TIMES = 8
"""The most time that four times the size may take, as a multiple; four would be exact."""
MEASURABLE = 0.004
"""Seconds; shorter times are noise."""
LONGEST_STEP = 0.020
MIB = 1024 * 1024

WORKS = list(works())


@pytest.mark.parametrize("work", WORKS, ids=lambda one: one.name)
def test_time_grows_with_size(work: Work) -> None:
    """Four times the text takes less than eight times as long, whatever its shape."""
    text = cache(work.shape)

    def seconds(size: int) -> float:
        return of(lambda: work.do(text(size)))

    size = work.smallest
    while seconds(4 * size) < MEASURABLE:
        size *= 2
        if size > work.largest:
            return  # too fast to measure even at the largest size
    ratio = growth(seconds, size, 4 * size, MANY_TIMES)
    while ratio >= MANY_TIMES and 2 * size <= work.largest:
        # A larger pair avoids the case that only one of the two sizes fits into the processor's caches.
        size *= 2
        ratio = growth(seconds, size, 4 * size, MANY_TIMES)
    assert ratio < MANY_TIMES, f"{work.name}: {seconds(4 * size):.3f} s for {4 * size} bytes"


def longest(steps: Callable[[], Iterator[None]]) -> float:
    """Return the seconds of the longest step."""

    def once() -> float:
        worst = 0.0
        begun = time.thread_time()
        for _ in steps():
            now = time.thread_time()
            worst = max(worst, now - begun)
            begun = time.thread_time()
        return max(worst, time.thread_time() - begun)

    return least(once, LONGEST_STEP)


@pytest.mark.parametrize("format_", [chat_completions, responses], ids=lambda one: one.name)
def test_requests_are_read_in_short_steps(format_: Format) -> None:
    """A body of any size and shape is read in short steps, also at the sizes where the way of reading changes."""
    for kind, shape in bodies("input" if format_ is responses else "messages"):
        for size in (16 * 1024, 500 * 1024, 2 * MIB):
            body = shape(size)
            took = longest(lambda: steps_of(format_, body))  # noqa: B023
            assert took < LONGEST_STEP, f"{kind}, {size} bytes: {took:.3f} s"


@pytest.mark.parametrize("encoding", ENCODERS)
def test_bodies_are_decoded_in_short_steps(encoding: str) -> None:
    """Compressed bodies, bombs included, are decoded in short steps up to the largest accepted size."""
    for data in (bytes(32 * MIB), b"0," * 16 * MIB, bytes(range(256)) * 8 * 1024):
        encoded = ENCODERS[encoding](data)
        assert longest(lambda: unpacking(encoded, encoding)) < LONGEST_STEP  # noqa: B023


@pytest.mark.parametrize("kind", dict(bodies("messages")))
def test_requests_are_edited_in_short_steps(kind: str) -> None:
    """Each edit of a body of any shape proceeds in short steps."""
    shape = dict(bodies("messages"))[kind]
    for size in (500 * 1024, 2 * MIB):
        body = shape(size)
        took = longest(lambda: editing(body))  # noqa: B023
        assert took < LONGEST_STEP, f"{size} bytes: {took:.3f} s"


@pytest.mark.parametrize("do", [relay, weave])
@pytest.mark.parametrize("format_", FORMATS, ids=lambda one: one.name)
def test_streams_are_read_in_short_steps(format_: Format, do: Callable[[Format, bytes], None]) -> None:
    """A block of `STEP` bytes, the most that is read at once, takes one short step."""
    for kind, shape in streams(format_):
        block = shape(STEP)
        took = least(lambda: of(lambda: do(format_, block)), LONGEST_STEP)  # noqa: B023
        assert took < LONGEST_STEP, f"{kind}: {took:.3f} s"
