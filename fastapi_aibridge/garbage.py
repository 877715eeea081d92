"""Keeps the garbage collector from going through the whole app in the middle of its streams."""

from __future__ import annotations

import gc
from types import TracebackType
from typing import Self


class FrozenHeap:
    """While entered, the cyclic garbage collector passes over all objects that were there before.

    The modules, models and routes of an app are some hundred thousand objects that never become garbage. Going through
    them takes a full collection a tenth of a second, in which no stream moves.

    Does nothing where the process has frozen objects already.
    """

    def __init__(self) -> None:
        self._is_ours = False

    def __enter__(self) -> Self:
        self._is_ours = not gc.get_freeze_count()
        if self._is_ours:
            gc.freeze()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_ours:
            gc.unfreeze()
