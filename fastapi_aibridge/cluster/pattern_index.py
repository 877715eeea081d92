"""An index of case-sensitive `fnmatch` patterns, which finds those that match a name without trying all."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from fnmatch import translate

_WILD = re.compile(r"[*?\[]")


class PatternIndex:
    """Patterns by the text before their first wildcard: only those whose prefix begins the name are tried."""

    def __init__(self) -> None:
        self._exact: dict[str, list[int]] = {}
        self._by_prefix: dict[str, list[tuple[Callable[[str], object], int]]] = {}
        self._lengths: set[int] = set()

    def add(self, pattern: str, place: int) -> None:
        """Add a pattern, for which `find` yields `place`."""
        wild = _WILD.search(pattern)
        if wild is None:
            self._exact.setdefault(pattern, []).append(place)
            return
        prefix = pattern[: wild.start()]
        self._by_prefix.setdefault(prefix, []).append((re.compile(translate(pattern)).match, place))
        self._lengths.add(len(prefix))

    def find(self, name: str) -> Iterator[int]:
        """Yield the places of the patterns that match, in no particular order."""
        yield from self._exact.get(name, ())
        for length in self._lengths:
            if length <= len(name):
                for matches, place in self._by_prefix.get(name[:length], ()):
                    if matches(name):
                        yield place
