"""Principals' keys for which no more bridges are built."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from .slot import Key

_MOST = 16_384
"""Keys that are remembered, the latest ones. A request takes a few seconds at most from its authentication to its
bridge, so no key is forgotten while such a request is running.
"""


class BarredKeys:
    def __init__(self) -> None:
        self._errors: OrderedDict[Key, Callable[[], Exception]] = OrderedDict()

    def add(self, key: Key, error: Callable[[], Exception]) -> None:
        self._errors[key] = error
        self._errors.move_to_end(key)
        if len(self._errors) > _MOST:
            self._errors.popitem(last=False)

    def check(self, key: Key) -> None:
        """Raise the error with which the key was barred, if it was."""
        if self._errors and (error := self._errors.get(key)) is not None:
            raise error()
