"""Reading takes time in proportion to the size of the text, and no single step of it keeps other requests waiting."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from fastapi_aibridge.exchange.relay import STEP
from fastapi_aibridge.formats import chat_completions, responses
from fastapi_aibridge.formats.format import Format

from .works import ENCODERS, FORMATS, Work, bodies, editing, relay, steps_of, streams, unpacking, weave, works

MANY_TIMES = 6
"""The most time that four times the size may take, as a multiple; four would be exact."""
MEASURABLE = 0.004
"""Seconds; shorter times are noise."""
LONGEST_STEP = 0.020
MIB = 1024 * 1024

WORKS = list(works())


def seconds(do: Callable[[], object], times: int = 4) -> float:
    """Return the processor time in seconds, the least of several runs; it excludes other processes."""
    best = float("inf")
    for _ in range(times):
        begun = time.thread_time()
        do()
        best = min(best, time.thread_time() - begun)
    return best


@pytest.fixture(scope="module", autouse=True)
def _frozen() -> Iterator[None]:
    """Exempt the objects of all other tests from the collections below, which would otherwise scan them."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _no_collections() -> Iterator[None]:
    """Disable the garbage collector: a collection would count towards whatever runs at that moment."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.parametrize("work", WORKS, ids=lambda one: one.name)
def test_time_grows_with_size(work: Work) -> None:
    """Four times the text takes less than six times as long, whatever its shape."""
    size = work.smallest
    while True:
        large = work.shape(4 * size)
        took = seconds(lambda: work.do(large), 1)  # noqa: B023 - used at once
        if took >= MEASURABLE or 2 * size > work.largest:
            break
        size *= 2
    if took < MEASURABLE:
        return  # too fast to measure even at the largest size
    small = work.shape(size)
    ratio = took / seconds(lambda: work.do(small), 1)
    for _ in range(4):
        if ratio < MANY_TIMES:
            break
        # A larger pair avoids the case that only one of the two sizes fits into the processor's caches.
        if 2 * size <= work.largest:
            size, small, large = 2 * size, work.shape(2 * size), work.shape(8 * size)
        ratio = seconds(partial(work.do, large)) / seconds(partial(work.do, small))
    assert ratio < MANY_TIMES, f"{work.name}: {took:.3f} s for {4 * size} bytes"


def longest(steps: Callable[[], Iterator[None]]) -> float:
    """Return the seconds of the longest step, the least of several runs."""
    best = float("inf")
    for _ in range(3):
        worst = 0.0
        begun = time.thread_time()
        for _ in steps():
            now = time.thread_time()
            worst = max(worst, now - begun)
            begun = time.thread_time()
        best = min(best, max(worst, time.thread_time() - begun))
        if best < LONGEST_STEP:
            break
    return best


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
        took = seconds(lambda: do(format_, block))  # noqa: B023
        assert took < LONGEST_STEP, f"{kind}: {took:.3f} s"
