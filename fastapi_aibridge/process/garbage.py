"""Keeps the garbage collector from stopping the app's streams."""

from __future__ import annotations

import gc
import threading
from typing import Self

THRESHOLDS = (5_000, 3, 30)
"""The collector's thresholds: new objects before a collection of the youngest generation, and the number of its
collections before an older generation is included.

With CPython's own 700, 10 and 10, two thousand open streams spend a quarter of the processor's time in full collections
of 0.3 seconds each. They find nothing, because an exchange's objects are freed without the collector.
"""


class RestrainedCollector:
    """A context manager in which the cyclic garbage collector skips all objects that existed before, and runs less
    often.

    The modules, models and routes of an app are some hundred thousand objects that never become garbage. A full
    collection spends a tenth of a second on them, during which no stream makes progress.

    The collector belongs to the process: if several are entered, also in threads, the first one restrains it and the
    last one releases it. The process's own choices are kept: frozen objects, and collections that are off or rarer.
    """

    _lock = threading.Lock()
    _holders = 0  # the first of them sets the two fields below
    _has_frozen = False
    _before: tuple[int, int, int] | None = None

    def __enter__(self) -> Self:
        cls = RestrainedCollector
        with cls._lock:
            cls._holders += 1
            if cls._holders == 1:
                cls._restrain()
        return self

    def __exit__(self, *_: object) -> None:
        cls = RestrainedCollector
        with cls._lock:
            cls._holders -= 1
            if cls._holders == 0:
                cls._release()

    @classmethod
    def _restrain(cls) -> None:
        cls._has_frozen = not gc.get_freeze_count()
        if cls._has_frozen:
            gc.freeze()
        before = gc.get_threshold()
        # An incremental collector, which has no full collections, reports 0 as the last threshold.
        if 0 < before[0] < THRESHOLDS[0] and before[2]:
            cls._before = before
            gc.set_threshold(*THRESHOLDS)

    @classmethod
    def _release(cls) -> None:
        if cls._has_frozen:
            gc.unfreeze()
        if cls._before is not None and gc.get_threshold() == THRESHOLDS:
            gc.set_threshold(*cls._before)
        cls._before = None
