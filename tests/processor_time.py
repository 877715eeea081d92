"""Bounds on processor time that hold on a busy machine too.

Other processes take away caches and clock speed, which only ever makes work slower. The least of several runs is
therefore the closest to the truth, and a bound that one run keeps is kept: the slow runs say nothing about the code.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf

RUNS = 20
"""The most runs of each size; a bound that is kept ends them earlier."""
MEASURABLE = 0.02
"""Seconds of runs of the small size before a growth is believed: one slow short run would hide much of it."""


def of(do: Callable[[], object]) -> float:
    """Return the processor time that this thread spends on one run, in seconds."""
    begun = time.thread_time()
    do()
    return time.thread_time() - begun


def least(seconds: Callable[[], float], enough: float) -> float:
    """Return the least of up to `RUNS` measurements; one below `enough` ends them."""
    best = inf
    with _no_collections():
        for _ in range(RUNS):
            best = min(best, seconds())
            if best < enough:
                break
    return best


def growth(seconds: Callable[[int], float], small: int, large: int, enough: float) -> float:
    """Return how many times as long the large size takes as the small one, by the least times of both."""
    short = long = inf
    measured = 0.0
    with _no_collections():
        for _ in range(RUNS):
            took = seconds(small)
            measured += took
            short, long = min(short, took), min(long, seconds(large))
            if measured >= MEASURABLE and long < enough * short:
                break
    return long / short


@contextmanager
def _no_collections() -> Iterator[None]:
    """Disable the garbage collector: a collection would scan the objects of all tests."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
