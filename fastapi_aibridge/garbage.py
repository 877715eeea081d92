"""Keeps the garbage collector from stopping the app's streams."""

from __future__ import annotations

import gc
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

    Leaves alone what the process has decided itself: frozen objects, collections that are switched off or rarer.
    """

    def __init__(self) -> None:
        self._has_frozen = False
        self._before: tuple[int, int, int] | None = None

    def __enter__(self) -> Self:
        self._has_frozen = not gc.get_freeze_count()
        if self._has_frozen:
            gc.freeze()
        before = gc.get_threshold()
        # A last threshold of 0 is that of an incremental collector, which has no full collections.
        if 0 < before[0] < THRESHOLDS[0] and before[2]:
            self._before = before
            gc.set_threshold(*THRESHOLDS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._has_frozen:
            gc.unfreeze()
        if self._before is not None and gc.get_threshold() == THRESHOLDS:
            gc.set_threshold(*self._before)
