"""Keeps the garbage collector from stopping the app's streams."""

from __future__ import annotations

import gc
import threading
from types import TracebackType
from typing import Self

THRESHOLDS = (5_000, 3, 30)
"""New objects after which the collector looks at the youngest, and how often it does so before it looks at older ones.

With CPython's own 700, 10 and 10, two thousand open streams spend a quarter of the processor's time in full collections
of 0.3 seconds each, which find nothing: what an exchange leaves behind is freed without the collector.
"""


class RestrainedCollector:
    """While entered, the cyclic garbage collector passes over all objects that were there before, and collects less
    often.

    The modules, models and routes of an app are some hundred thousand objects that never become garbage. Going through
    them takes a full collection a tenth of a second, in which no stream moves.

    The collector belongs to the process: of several that are entered, in threads too, the first restrains it and the
    last lets go. Leaves alone what the process has decided itself: frozen objects, collections that are switched off
    or rarer.
    """

    _lock = threading.Lock()
    _holders = 0  # with what the first of them has changed
    _has_frozen = False
    _before: tuple[int, int, int] | None = None

    def __enter__(self) -> Self:
        cls = RestrainedCollector
        with cls._lock:
            cls._holders += 1
            if cls._holders == 1:
                cls._restrain()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
        # A last threshold of 0 is that of an incremental collector, which has no full collections.
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
